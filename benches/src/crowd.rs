//! Many containers, made and removed by several clients at a time.

use std::path::PathBuf;

use anyhow::Result;
use tokio::task::JoinSet;
use warden_client::Client;

use crate::warden::{Handle, Warden};

/// Clients at a time.
const CLIENTS: usize = 4;

/// Makes containers, several at a time.
pub(crate) fn create(warden: &Warden, count: usize) -> Result<Vec<Handle>> {
    let socket = warden.daemon.socket().to_owned();
    warden.wait_for(async move {
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let share = count / CLIENTS + usize::from(client < count % CLIENTS);
            tasks.spawn(create_some(socket.clone(), share));
        }
        let mut all = Vec::new();
        while let Some(made) = tasks.join_next().await {
            all.extend(made??);
        }
        Ok(all)
    })
}

async fn create_some(socket: PathBuf, count: usize) -> Result<Vec<Handle>> {
    let mut client = Client::connect(socket).await?;
    let mut handles = Vec::with_capacity(count);
    for _ in 0..count {
        handles.push(client.create().await?);
    }
    Ok(handles)
}

/// Removes containers in which nothing runs, several at a time.
pub(crate) fn destroy(warden: &Warden, handles: Vec<Handle>) -> Result<()> {
    let socket = warden.daemon.socket().to_owned();
    warden.wait_for(async move {
        let mut tasks = JoinSet::new();
        let share = handles.len().div_ceil(CLIENTS).max(1);
        for some in handles.chunks(share) {
            tasks.spawn(destroy_some(socket.clone(), some.to_vec()));
        }
        while let Some(removed) = tasks.join_next().await {
            removed??;
        }
        Ok(())
    })
}

async fn destroy_some(socket: PathBuf, handles: Vec<Handle>) -> Result<()> {
    let mut client = Client::connect(socket).await?;
    for handle in handles {
        client.destroy(handle).await?;
    }
    Ok(())
}
