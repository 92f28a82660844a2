//! What the origin saw against what is on record, read from the database itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row as _};

use super::eventually;
use super::world::World;

/// The account of a world, carried on as more happens. Every request must have a path of its own.
#[derive(Debug, Default)]
pub struct Books {
    /// Requests at the origin that were compared.
    pub seen: usize,
    /// Number of the last record that was read.
    pub records: i64,
    /// Paths of the decisions.
    pub decisions: HashSet<String>,
    /// How often exchanges ended how.
    pub outcomes: BTreeMap<String, usize>,
    /// Decisions without an outcome.
    pub open: BTreeSet<String>,
}

impl Books {
    /// Reads what was recorded since and looks up every request that the origin saw since. Waits until every decision
    /// has its outcome.
    ///
    /// # Panics
    /// Where a number is left out, an outcome does not come, or something left without a record.
    pub async fn compare(&mut self, world: &World) {
        // First what was seen, then what is on record: the other way round requests would come in between.
        let seen = world.origin.requests_after(self.seen);
        self.seen += seen.len();
        eventually("the outcomes of all decisions", async || {
            self.read(world).await;
            self.open.is_empty().then_some(())
        })
        .await;
        let missing: Vec<_> = seen.iter().filter(|seen| !self.decisions.contains(&seen.path)).collect();
        assert!(
            missing.is_empty(),
            "{} of {} left without a record: {missing:#?}",
            missing.len(),
            seen.len()
        );
    }

    /// Reads what was recorded since.
    pub async fn read(&mut self, world: &World) {
        let options =
            SqliteConnectOptions::new().filename(world.gate.data().join("outgate.db")).read_only(true);
        let mut database: SqliteConnection = options.connect().await.unwrap();
        let rows = sqlx::query("SELECT seq, record FROM records WHERE seq > $1 ORDER BY seq")
            .bind(self.records)
            .fetch_all(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        for row in rows {
            let seq: i64 = row.get("seq");
            assert_eq!(seq, self.records + 1, "the numbers have a gap");
            self.records = seq;
            self.enter(&serde_json::from_str(row.get("record")).unwrap());
        }
    }

    fn enter(&mut self, record: &Value) {
        if record["event"].is_string() {
            return;
        }
        match record["decision"].as_str() {
            None => {
                self.open.insert(record["id"].as_str().unwrap().to_owned());
                self.decisions.insert(record["path"].as_str().unwrap_or_default().to_owned());
            }
            Some(decision) => {
                assert!(self.open.remove(decision), "an outcome without an open decision: {record}");
                *self.outcomes.entry(record["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
}
