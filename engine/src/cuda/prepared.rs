//! Launches that were prepared: one per shape, so that a path that comes again prepares nothing.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

/// For every type of launch and of key a map from keys to launches.
#[derive(Default)]
pub(super) struct Prepared(Mutex<State>);

#[derive(Default)]
struct State {
    maps: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    len: usize,
}

impl Prepared {
    /// The launch for `key`, made if it is asked for the first time.
    pub fn get<K, T, E>(&self, key: K, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E>
    where
        K: Hash + Eq + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let State { maps, len } = &mut *self.lock();
        let map = maps
            .entry(TypeId::of::<(K, T)>())
            .or_insert_with(|| Box::new(HashMap::<K, Arc<T>>::new()))
            .downcast_mut::<HashMap<K, Arc<T>>>()
            .expect("the map lies under its own type");
        if let Some(found) = map.get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        map.insert(key, made.clone());
        *len += 1;
        Ok(made)
    }

    /// Launches so far.
    pub fn len(&self) -> usize {
        self.lock().len
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it prepares a launch")
    }
}
