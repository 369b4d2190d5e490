//! Whole lives in a second, from several clients at a time, in turns with as many floors and the peers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use warden_client::Client;

use crate::bench::Bench;
use crate::floor::Floor;
use crate::peer::{self, Peer, execute};
use crate::report::{FLOOR, Unit, WARDEN};
use crate::warden::Warden;

/// Clients at a time.
const CLIENTS: [usize; 4] = [1, 2, 8, 32];

/// Measures slices of time, the product's and the peers' in turns.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (slices, length) = bench.options.pick((3, 2.0), (1, 0.4));
    let quick = bench.options.quick;
    let length = Duration::from_secs_f64(length);
    let mut warden = Warden::start(&bench.options, &[])?;
    let sample = warden.create()?.0;
    let spec = warden.directory_of(&sample)?.join("spec.json");
    let mut floors = (0..peer::CLIENTS).map(|_| Floor::start(&spec)).collect::<Result<Vec<_>>>();
    for _ in 0..slices {
        for clients in CLIENTS {
            let scenario = scenario(clients);
            let rate = own_rate(&warden, clients, length);
            bench.report.record(&scenario, WARDEN, Unit::PerSecond, rate);
            if clients <= peer::CLIENTS {
                let rate = match &mut floors {
                    Ok(floors) => floor_rate(&mut floors[..clients], length),
                    Err(error) => Err(anyhow!("{error:#}")),
                };
                bench.report.record(&scenario, FLOOR, Unit::PerSecond, rate);
            }
            let able = bench
                .peers
                .present
                .iter()
                .filter(|peer| peer.every == 1 && clients <= peer::CLIENTS && !quick);
            for peer in able {
                if !bench.report.is_hopeless(&scenario, peer.name) {
                    let rate = peer_rate(peer, clients, length);
                    bench.report.record(&scenario, peer.name, Unit::PerSecond, rate);
                }
            }
        }
    }
    drop(floors);
    warden.destroy(&sample).map(drop)
}

fn scenario(clients: usize) -> String {
    format!("whole lives per second, {clients} client{}", if clients == 1 { "" } else { "s" })
}

fn own_rate(warden: &Warden, clients: usize, length: Duration) -> Result<f64> {
    let socket = warden.daemon.socket().to_owned();
    warden.wait_for(async move {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(lives(socket.clone(), start + length));
        }
        let mut count = 0;
        while let Some(lived) = tasks.join_next().await {
            count += lived??;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    })
}

async fn lives(socket: PathBuf, end: Instant) -> Result<u32> {
    let mut client = Client::connect(socket).await?;
    let mut count = 0;
    while Instant::now() < end {
        let handle = client.create().await?;
        client.run(&handle, "true").await?;
        client.destroy(&handle).await?;
        count += 1;
    }
    Ok(count)
}

/// Each of them makes, uses and ends its containers, those behind it removed.
fn floor_rate(floors: &mut [Floor], length: Duration) -> Result<f64> {
    let life = |floor: &mut Floor| {
        ["create", "run", "destroy"].iter().try_for_each(|order| floor.measure(order).map(drop))
    };
    rate(floors.iter_mut().map(|floor| move || life(floor)), length)
}

fn peer_rate(peer: &Peer, clients: usize, length: Duration) -> Result<f64> {
    let lines = (0..clients).map(|client| peer.life_of(client));
    rate(lines.map(|line| move || execute(&line)), length)
}

/// How many lives in a second come of these, each in a thread of its own that lives one after the other.
fn rate<L: FnMut() -> Result<()> + Send>(lives: impl Iterator<Item = L>, length: Duration) -> Result<f64> {
    let start = Instant::now();
    let work = |mut live: L| {
        let mut count = 0_u32;
        while start.elapsed() < length {
            live()?;
            count += 1;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = lives.map(|live| scope.spawn(move || work(live))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(0)));
        ended.sum::<Result<u32>>()
    });
    Ok(f64::from(counts?) / start.elapsed().as_secs_f64())
}
