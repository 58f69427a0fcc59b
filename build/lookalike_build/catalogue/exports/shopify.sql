-- Shopify, Products > Export. A product has a row for each variant and each picture, all with its handle;
-- its type and status stand in the first of them.
CREATE TABLE feed (
    "Handle" VARCHAR NOT NULL,
    "Image Src" VARCHAR NOT NULL,
    "Image Position" VARCHAR,
    "Type" VARCHAR,
    "Product Category" VARCHAR,
    "Published" VARCHAR,
    "Status" VARCHAR
);

WITH product AS (
    SELECT
        "Handle",
        first("Status" ORDER BY line) FILTER ("Status" <> '') AS first_status,
        first("Published" ORDER BY line) FILTER ("Published" <> '') AS first_published,
        first("Type" ORDER BY line) FILTER ("Type" <> '') AS first_type,
        first("Product Category" ORDER BY line) FILTER ("Product Category" <> '') AS first_category
    FROM feed
    GROUP BY "Handle"
)
SELECT
    line,
    "Handle" AS product_id,
    [CASE WHEN first_type IS NULL THEN string_split(first_category, ' > ') ELSE [first_type] END] AS categories,
    "Image Src" AS image,
    CASE
        WHEN "Handle" = '' THEN NULL
        WHEN lower(coalesce(first_status, 'active')) <> 'active' THEN 'not active'
        WHEN lower(coalesce(first_published, 'true')) = 'false' THEN 'not published'
        WHEN row_number() OVER (
            PARTITION BY "Handle"
            ORDER BY "Image Src" = '', TRY_CAST("Image Position" AS INTEGER) NULLS LAST, line
        ) = 1 THEN NULL
        WHEN "Image Src" = '' THEN 'variant'
        ELSE 'further picture'
    END AS left_out
FROM feed LEFT JOIN product USING ("Handle")
ORDER BY line;
