//! Opening the database: pools, pragmas, migrations and the first seeding, safe when several processes start at once.
//! Only this file and `interrupt` treat SQLite and PostgreSQL differently.

use std::sync::Once;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::Migrator;
use sqlx::{Any, AnyConnection, AnyPool, Executor, Transaction};

use super::error::ProductsError;
use super::interrupt::Interruptible;
use super::seed;

/// How long a call waits for a free connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pools of one database.
///
/// SQLite admits one writer at a time. Within this process writers queue for the one connection of `writer`, in order;
/// between processes SQLite's busy timeout makes them wait. In PostgreSQL both are the same pool. Statements whose time depends on
/// what a caller asks for run on connections of their own, where they can be interrupted.
#[derive(Debug, Clone)]
pub(super) struct Database {
    reader: AnyPool,
    writer: AnyPool,
    pub(super) interruptible: Interruptible,
}

impl Database {
    /// Connects, brings the tables up to date and seeds an empty catalogue.
    pub(super) async fn open(url: &str) -> Result<Self, ProductsError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let database = if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await?
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Self::open_postgres(url).await?
        } else {
            return Err(ProductsError::UnsupportedUrl);
        };
        seed::fill_if_empty(&database).await?;
        Ok(database)
    }

    async fn open_sqlite(url: &str) -> Result<Self, ProductsError> {
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(ProductsError::UnsupportedUrl); // each pool would get a database of its own
        }
        let url = match url.split_once('?') {
            Some((_, options)) if options.contains("mode=") => url.to_owned(),
            Some(_) => format!("{url}&mode=rwc"),
            None => format!("{url}?mode=rwc"),
        };
        let writer = sqlite_pool(1).connect(&url).await?;
        // SQLite has no lock for migrators: the write lock of one transaction around the whole run does it.
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        migrate(&mut tx).await?;
        tx.commit().await?;
        let reader = sqlite_pool(4).connect(&url).await?;
        let interruptible = Interruptible::sqlite(&url).await?;
        Ok(Self {
            reader,
            writer,
            interruptible,
        })
    }

    async fn open_postgres(url: &str) -> Result<Self, ProductsError> {
        let options = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = options.connect(url).await?;
        let mut connection = pool.acquire().await?;
        migrate(&mut connection).await?; // takes an advisory lock
        drop(connection);
        Ok(Self {
            reader: pool.clone(),
            writer: pool,
            interruptible: Interruptible::postgres(url)?,
        })
    }

    /// Returns the pool for reading.
    pub(super) fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// Begins a transaction that writes. Its first statement must be a write: a SQLite transaction that starts by reading
    /// cannot wait for the write lock, it fails with `SQLITE_BUSY`.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>, ProductsError> {
        Ok(self.writer.begin().await?)
    }
}

fn sqlite_pool(max_connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("PRAGMA busy_timeout = 10000").await?;
                connection.execute("PRAGMA journal_mode = WAL").await?;
                connection.execute("PRAGMA synchronous = NORMAL").await?;
                connection.execute("PRAGMA foreign_keys = ON").await?;
                Ok(())
            })
        })
}

async fn migrate(connection: &mut AnyConnection) -> Result<(), ProductsError> {
    let mut migrator: Migrator = sqlx::migrate!("src/products/migrations");
    migrator.dangerous_set_table_name("product_migrations"); // other servers may share the database
    Ok(migrator.run_direct(None, connection, false).await?) // `run` makes a future that is not `Send`
}
