//! Against registries that run here, and see to it that they are asked as the real ones want to be.

mod confluent;
mod double;
mod eventhubs;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::connector::Options;
use formats::{Found, RegisteredSchema, SchemaId, Schemas, Wake};
use tokio::runtime::Handle;

use crate::{Pace, Registry};

/// Waits for nothing longer than a test must.
const QUICK: Pace = Pace {
    answer: Duration::from_secs(10),
    pause: (Duration::from_millis(5), Duration::from_millis(20)),
    none: Duration::from_secs(60),
    told: Duration::from_secs(60),
};

fn registry(options: &[(&str, &str)]) -> Registry {
    registry_with(QUICK, options)
}

fn registry_with(pace: Pace, options: &[(&str, &str)]) -> Registry {
    let options = Options(options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
    Registry::with_pace(&options, &|_| None, pace).expect("its options are right").expect("there is one")
}

fn start(registry: &Registry) -> Arc<dyn Schemas> {
    registry.start(Handle::current())
}

/// Someone who looks for a schema, and how often he was woken.
struct Reader {
    schemas: Arc<dyn Schemas>,
    woken: Arc<AtomicUsize>,
    wake: Wake,
}

impl Reader {
    fn of(schemas: &Arc<dyn Schemas>) -> Self {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let wake: Wake = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Reader { schemas: schemas.clone(), woken, wake }
    }

    fn look(&self, id: &SchemaId) -> Found {
        self.schemas.look(id, &self.wake)
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }

    /// What he finds once he is woken.
    async fn answer(&self, id: &SchemaId) -> Found {
        loop {
            let before = self.woken();
            match self.look(id) {
                Found::NotYet => until(|| self.woken() > before).await,
                found => return found,
            }
        }
    }

    async fn schema(&self, id: &SchemaId) -> Arc<RegisteredSchema> {
        match self.answer(id).await {
            Found::Schema(schema) => schema,
            other => panic!("{other:?}"),
        }
    }

    async fn none(&self, id: &SchemaId) -> String {
        match self.answer(id).await {
            Found::None(why) => why.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// Waits for something that must come; generous, for a busy machine.
async fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
