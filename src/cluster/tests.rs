//! openraft's own suite over our log storage and state machine, on real files.

use super::log::Log;
use super::machine::{Fold, Folded};
use super::types::{Response, TypeConfig};
use crate::core::codec::Corrupt;
use crate::store::{Options, Store};
use bytes::Bytes;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{StorageError, type_config::TypeConfigExt};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Keeps every command that it folded.
#[derive(Default)]
struct Kept(Mutex<Vec<Bytes>>);

impl Fold for Kept {
    fn apply(&self, _index: u64, command: Bytes) -> Result<Response, Corrupt> {
        self.0.lock().unwrap().push(command);
        Ok(Response::None)
    }

    fn encode(&self) -> Bytes {
        self.0.lock().unwrap().concat().into()
    }

    fn restore(&self, state: Bytes) -> Result<(), Corrupt> {
        *self.0.lock().unwrap() = vec![state];
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, Folded, (TempDir, Store)> for Builder {
    async fn build(&self) -> Result<((TempDir, Store), Log, Folded), StorageError<TypeConfig>> {
        let folder = TempDir::new().expect("a temporary folder");
        let store = Store::open_dir(folder.path(), Options::default()).expect("an empty folder opens");
        let group = store.group(1);
        let folded = Folded::open(group.clone(), Arc::new(Kept::default())).expect("an empty group opens");
        Ok(((folder, store), Log::new(group), folded))
    }
}

#[test]
fn the_log_and_the_machine_pass_the_suite_of_openraft() {
    TypeConfig::run(async { Suite::test_all(Builder).await.unwrap() });
}
