-- WooCommerce, Products > Export. A variation is a row of its own and names its parent as id:10 or by its
-- SKU; a cell may hold several categories and several pictures, with commas between them.
CREATE TABLE feed (
    "ID" VARCHAR NOT NULL,
    "Type" VARCHAR NOT NULL,
    "Categories" VARCHAR NOT NULL,
    "Images" VARCHAR NOT NULL,
    "SKU" VARCHAR,
    "Published" VARCHAR,
    "Visibility in catalog" VARCHAR,
    "Visibility in catalogue" VARCHAR,
    "Parent" VARCHAR
);

WITH pictured AS (
    SELECT
        *,
        regexp_replace(string_split("Images", ', ')[1], ',(https?:)?//.*', '') AS picture,
        list_contains(string_split("Type", ', '), 'variation') AS is_variation
    FROM feed
), variation AS (
    SELECT "Parent", first(picture ORDER BY line) AS picture
    FROM pictured
    WHERE is_variation AND picture <> ''
    GROUP BY "Parent"
)
SELECT
    line,
    "ID" AS product_id,
    list_transform(
        string_split(replace("Categories", '\,', chr(1)), ', '),
        lambda category: string_split(replace(category, chr(1), ','), ' > ')
    ) AS categories,
    coalesce(
        nullif(picture, ''),
        (SELECT variation.picture FROM variation WHERE variation."Parent" = 'id:' || "ID"),
        (SELECT variation.picture FROM variation WHERE "SKU" <> '' AND variation."Parent" = "SKU"),
        ''
    ) AS image,
    CASE
        WHEN is_variation THEN 'variation'
        WHEN "Published" NOT IN ('1', '') THEN 'not published'
        WHEN 'hidden' IN ("Visibility in catalog", "Visibility in catalogue") THEN 'hidden'
    END AS left_out
FROM pictured
ORDER BY line;
