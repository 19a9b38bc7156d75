-- Exports read in the order in which rows came, from a place and up to a date.

CREATE INDEX products_by_created_at ON products (created_at, sku);
CREATE INDEX product_stock_changes_by_changed_at ON product_stock_changes (changed_at, sku, version);
