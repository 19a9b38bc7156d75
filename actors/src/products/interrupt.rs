//! Statements that end with the call they run for. Who cancels a call drops its future; what the database does for it would go on,
//! in SQLite's thread or in a process of PostgreSQL, if nobody told the database.
//!
//! A connection is interrupted only while its call still holds it, so that no other call's statement can be hit: in SQLite each call
//! has a flag of its own, and in PostgreSQL the connection goes back to its pool when the interrupted statement has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Any, AnyPool, AssertSqlSafe, Connection as _, Database, Encode, Executor as _, FromRow, Sqlite,
    SqlitePool, Type,
    any::{AnyPoolOptions, AnyRow},
    pool::{PoolConnection, PoolOptions},
    query::QueryAs,
    query_as, query_scalar,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tokio::{runtime::Handle, time::timeout};

use super::{database::ACQUIRE_TIMEOUT, error::ProductsError};

/// How many calls may have such a statement at once in one process; others wait for a connection.
pub(super) const AT_ONCE: u32 = 4;
/// How long one statement may run when nobody cancels it; in SQLite, all statements of one call together.
const LIMIT: Duration = Duration::from_secs(60);
/// SQLite looks whether its statement is still wanted after so many steps of its machine: well below a millisecond.
const STEPS: i32 = 1000;
/// How long PostgreSQL may take to end a statement, before its connection is closed instead.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// PostgreSQL ignores a cancellation that overtakes its statement, so it is sent again after this time.
const STOP_AGAIN: Duration = Duration::from_millis(100);

/// How PostgreSQL calls the end of a statement that was cancelled or ran out of time.
const QUERY_CANCELED: &str = "57014";
/// The same in SQLite: `SQLITE_INTERRUPT`.
const INTERRUPT: &str = "9";

/// A value to bind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(i64),
    Text(String),
}

/// The connections for statements that can be interrupted.
#[derive(Debug, Clone)]
pub(super) struct Interruptible {
    pool: Pool,
    limit: Duration,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres {
        pool: AnyPool,
        /// For cancellations, which must not wait behind what they cancel.
        control: AnyPool,
    },
}

impl Interruptible {
    /// Opens a SQLite file that exists.
    pub(super) async fn sqlite(url: &str) -> Result<Self, ProductsError> {
        let options: SqliteConnectOptions = url.parse()?;
        let pool = PoolOptions::new()
            .max_connections(AT_ONCE)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.busy_timeout(ACQUIRE_TIMEOUT))
            .await?;
        Ok(Self {
            pool: Pool::Sqlite(pool),
            limit: LIMIT,
        })
    }

    /// Prepares connections to PostgreSQL.
    pub(super) fn postgres(url: &str) -> Result<Self, ProductsError> {
        let pool = AnyPoolOptions::new()
            .max_connections(AT_ONCE)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    let limit = format!("SET statement_timeout = {}", LIMIT.as_millis());
                    connection.execute(AssertSqlSafe(limit)).await?;
                    Ok(())
                })
            })
            .connect_lazy(url)?;
        let control = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy(url)?;
        Ok(Self {
            pool: Pool::Postgres { pool, control },
            limit: LIMIT,
        })
    }

    /// Gives every statement in SQLite another limit than the usual one.
    #[cfg(test)]
    pub(super) fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Takes a connection for the statements of one call.
    pub(super) async fn begin(&self) -> Result<Statements, ProductsError> {
        let on = match &self.pool {
            Pool::Sqlite(pool) => {
                let mut connection = pool.acquire().await?;
                let given_up = Arc::new(AtomicBool::new(false));
                let (flag, until) = (Arc::clone(&given_up), Instant::now() + self.limit);
                // Waits for the statement before, and takes the place of its handler: from here on only this call can interrupt.
                connection
                    .lock_handle()
                    .await?
                    .set_progress_handler(STEPS, move || {
                        !flag.load(Ordering::Relaxed) && Instant::now() < until
                    });
                On::Sqlite { connection, given_up }
            }
            Pool::Postgres { pool, control } => {
                let mut connection = pool.acquire().await?;
                let process = query_scalar::<Any, i32>("SELECT pg_backend_pid()")
                    .fetch_one(&mut *connection)
                    .await?;
                On::Postgres {
                    connection: Some(connection),
                    process,
                    control: control.clone(),
                    running: false,
                }
            }
        };
        Ok(Statements {
            on,
            limit: self.limit,
        })
    }
}

/// The statements of one call, one after the other. Whatever runs when this is dropped is interrupted.
#[derive(Debug)]
pub(super) struct Statements {
    on: On,
    limit: Duration,
}

#[derive(Debug)]
enum On {
    Sqlite {
        connection: PoolConnection<Sqlite>,
        given_up: Arc<AtomicBool>,
    },
    Postgres {
        /// Taken when this is dropped.
        connection: Option<PoolConnection<Any>>,
        /// The process of PostgreSQL that serves the connection.
        process: i32,
        control: AnyPool,
        running: bool,
    },
}

impl Statements {
    /// Runs a statement and returns its rows. `sql` holds nothing that a caller sent.
    pub(super) async fn fetch_all<T>(
        &mut self,
        sql: impl Into<String>,
        values: &[Value],
    ) -> Result<Vec<T>, ProductsError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, AnyRow> + Send + Unpin,
    {
        let sql = sql.into();
        let rows = match &mut self.on {
            On::Sqlite { connection, .. } => {
                bound::<Sqlite, T>(sql, values).fetch_all(&mut **connection).await
            }
            On::Postgres {
                connection: Some(connection),
                running,
                ..
            } => {
                *running = true;
                let rows = bound::<Any, T>(sql, values).fetch_all(&mut **connection).await;
                *running = false;
                rows
            }
            On::Postgres { connection: None, .. } => Err(sqlx::Error::PoolClosed),
        };
        rows.map_err(
            |error| match error.as_database_error().and_then(|error| error.code()) {
                Some(code) if [QUERY_CANCELED, INTERRUPT].contains(&&*code) => {
                    ProductsError::TooSlow { limit: self.limit }
                }
                _ => error.into(),
            },
        )
    }
}

impl Drop for Statements {
    fn drop(&mut self) {
        match &mut self.on {
            // The connection's next call has a flag of its own.
            On::Sqlite { given_up, .. } => given_up.store(true, Ordering::Relaxed),
            On::Postgres {
                connection,
                process,
                control,
                running: true,
            } => {
                if let (Some(connection), Ok(runtime)) = (connection.take(), Handle::try_current()) {
                    runtime.spawn(stop(connection, *process, control.clone()));
                }
            }
            On::Postgres { .. } => {}
        }
    }
}

/// Ends what a process of PostgreSQL does on a connection, and gives the connection back when it has ended. A cancellation is for
/// whatever the process does when it arrives, so all that were sent must have arrived by then.
async fn stop(mut connection: PoolConnection<Any>, process: i32, control: AnyPool) {
    let stopped = timeout(STOP_LIMIT, async {
        loop {
            // Answers when the signal is out, before which the process can read nothing more from its connection.
            query_scalar::<Any, bool>("SELECT pg_cancel_backend($1)")
                .bind(process)
                .fetch_one(&control)
                .await?;
            loop {
                match timeout(STOP_AGAIN, connection.ping()).await {
                    Ok(Err(sqlx::Error::Database(_))) => {} // how the statement has ended
                    Ok(ready) => return ready,
                    Err(_) => break,
                }
            }
        }
    });
    let why = match stopped.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(
        why,
        "a statement that nobody wants could not be cancelled, its connection is closed"
    );
    connection.close_on_drop();
}

fn bound<DB, T>(sql: String, values: &[Value]) -> QueryAs<'static, DB, T, DB::Arguments>
where
    DB: Database,
    T: for<'r> FromRow<'r, DB::Row>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
{
    let mut statement = query_as(AssertSqlSafe(sql));
    for value in values {
        statement = match value.clone() {
            Value::Number(number) => statement.bind(number),
            Value::Text(text) => statement.bind(text),
        };
    }
    statement
}
