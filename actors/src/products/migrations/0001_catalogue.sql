-- The catalogue, its stock ledger and its search index. Only types that SQLite and PostgreSQL spell alike.

CREATE TABLE products (
    sku         TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    category    TEXT   NOT NULL,
    brand       TEXT   NOT NULL,
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    currency    TEXT   NOT NULL,
    stock       BIGINT NOT NULL CHECK (stock >= 0),
    tags        TEXT   NOT NULL,             -- a JSON array of strings
    version     BIGINT NOT NULL DEFAULT 1,   -- rises by one with every change
    created_at  TEXT   NOT NULL,             -- ISO 8601, UTC, milliseconds: sorts as text
    updated_at  TEXT   NOT NULL
);

CREATE INDEX products_by_category ON products (category);
CREATE INDEX products_by_name ON products (name, sku);
CREATE INDEX products_by_price ON products (price_cents, sku);

-- One row for every movement of stock; the product's version makes the key.
CREATE TABLE product_stock_changes (
    sku        TEXT   NOT NULL REFERENCES products (sku),
    version    BIGINT NOT NULL,
    delta      BIGINT NOT NULL,
    reason     TEXT   NOT NULL,
    changed_at TEXT   NOT NULL,
    PRIMARY KEY (sku, version)
);

-- The search index. `stem` is the first three letters of the word: equality on it narrows a prefix search to a few rows
-- in any collation, where a range over `word` would depend on the database's locale.
CREATE TABLE product_words (
    generation BIGINT NOT NULL,
    stem       TEXT   NOT NULL,
    word       TEXT   NOT NULL,
    sku        TEXT   NOT NULL,
    PRIMARY KEY (generation, stem, word, sku)
);

CREATE INDEX product_words_by_sku ON product_words (sku);

-- One row. Whoever writes words updates it first, so that a rebuild and an edit never interleave.
CREATE TABLE product_index (
    id          BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    active      BIGINT NOT NULL,   -- the generation that searches read
    building    BIGINT NOT NULL,   -- the generation under construction, 0 when there is none
    latest      BIGINT NOT NULL,   -- the highest generation ever given out
    last_number BIGINT NOT NULL    -- the number in the SKU generated last
);

INSERT INTO product_index (id, active, building, latest, last_number) VALUES (1, 1, 0, 1, 0);
