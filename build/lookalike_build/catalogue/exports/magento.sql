-- Magento 2 and Adobe Commerce, System > Export > Products. A row with a store view's code holds only what
-- differs there; what is not visible individually is a variant. Pictures are relative to the shop's
-- media/catalog/product: give that as --image-base.
CREATE TABLE feed (
    sku VARCHAR NOT NULL,
    categories VARCHAR NOT NULL,
    base_image VARCHAR NOT NULL,
    visibility VARCHAR NOT NULL,
    store_view_code VARCHAR,
    product_online VARCHAR
);

SELECT
    line,
    sku AS product_id,
    list_transform(string_split(feed.categories, ','), lambda category: string_split(category, '/')) AS categories,
    CASE WHEN base_image = 'no_selection' THEN '' ELSE base_image END AS image,
    CASE
        WHEN store_view_code <> '' THEN 'store view'
        WHEN product_online NOT IN ('1', '') THEN 'not active'
        WHEN lower(visibility) = 'not visible individually' THEN 'variant'
    END AS left_out
FROM feed
ORDER BY line;
