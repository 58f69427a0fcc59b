-- A product feed for Google Merchant Center, which others take as well: tabs, commas or XML. The products of
-- an item group are variants of one, which is known by the group's id.
CREATE TABLE feed (
    id VARCHAR NOT NULL,
    image_link VARCHAR NOT NULL,
    item_group_id VARCHAR,
    product_type VARCHAR,
    google_product_category VARCHAR
);

SELECT
    line,
    coalesce(nullif(item_group_id, ''), id) AS product_id,
    [string_split(coalesce(nullif(product_type, ''), google_product_category), '>')] AS categories,
    image_link AS image,
    CASE
        WHEN item_group_id = '' THEN NULL
        WHEN row_number() OVER (PARTITION BY item_group_id ORDER BY image_link = '', line) > 1 THEN 'variant'
    END AS left_out
FROM feed
ORDER BY line;
