//! The machine's containers: the domain's front door.

use std::sync::Arc;

use crate::container::Container;
use crate::error::Error;
use crate::request::Create;
use crate::settings::Settings;

/// All containers of one depot.
#[derive(Clone, Debug)]
pub struct Host {}

impl Host {
    /// Examines the machine, prepares depot, image and cgroups, and removes what an earlier daemon left.
    pub async fn start(_settings: Settings) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Registers a client's connection; it references containers until it is dropped.
    pub fn connect(&self) -> Connection {
        unimplemented!()
    }

    /// Stops to admit requests; containers and jobs go on.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

/// One client's view; dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// Makes a container and returns its handle.
    pub async fn create(&self, _request: Create) -> Result<Vec<u8>, Error> {
        unimplemented!()
    }

    /// Lists the handles in the order of creation.
    pub fn list(&self) -> Vec<Vec<u8>> {
        unimplemented!()
    }

    /// Finds a container, and references it.
    pub fn container(&self, _handle: &[u8]) -> Result<Arc<Container>, Error> {
        unimplemented!()
    }
}
