"""The files on disk: releases, checked against their manifests and mapped, and the root of them all.

`opened` describes the files of a release. `root.ReleaseRoot` is where to begin; the builder writes by
the same modules, so the files are described nowhere else.
"""
