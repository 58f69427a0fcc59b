-- wrk: POST /nns with one of the lines of a file at random as the body. Argument: the file.
local bodies = {}

function init(arguments)
  for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
end

function request()
  return wrk.format("POST", "/nns", { ["Content-Type"] = "application/json" }, bodies[math.random(#bodies)])
end
