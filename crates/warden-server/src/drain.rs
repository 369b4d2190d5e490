//! The end of service: the signals that ask for it, and what connections hear of it.
//!
//! ```text
//!              SIGUSR2                        last request done
//!   (serving) ---------> (draining)         ---------------------> (ended, socket file stays)
//!       |                    | TERM, INT
//!       | TERM, INT          v
//!       +--------------> (ending: socket file removed, time limit) --> (ended)
//!                            | TERM, INT again: ended at once
//! ```

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGUSR2: let the requests under way end, without a time limit; another daemon follows.
    Drain,
    /// SIGTERM, SIGINT: the same with a time limit.
    End,
}

/// The signals that end the daemon.
#[derive(Debug)]
pub(crate) struct Signals {
    drain: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Ok(Self {
            drain: catch(SignalKind::user_defined2())?,
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.drain.recv() => Order::Drain,
            _ = self.terminate.recv() => Order::End,
            _ = self.interrupt.recv() => Order::End,
        }
    }

    /// Waits for the next one that ends the daemon; a second SIGUSR2 is ignored.
    pub(crate) async fn end(&mut self) {
        while self.next().await == Order::Drain {}
    }
}

/// Catches SIGHUP, which ends nothing, from now on.
pub(crate) fn sighups() -> Result<Signal, Failure> {
    catch(SignalKind::hangup())
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|source| Failure::io("catching signals", source))
}

/// What a connection hears of the drain.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Whoever sends true starts the drain, and so does dropping the sender.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits until it starts.
    pub(crate) async fn started(&mut self) {
        // An error means that the sender is gone, and the server with it.
        let _ = self.0.wait_for(|started| *started).await;
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn each_signal_is_an_order_and_only_two_of_them_end() {
        let mut signals = Signals::catch().unwrap();
        let send = |number| kill_process(getpid(), number).unwrap();
        for (number, order) in
            [(Number::USR2, Order::Drain), (Number::TERM, Order::End), (Number::INT, Order::End)]
        {
            send(number);
            assert_eq!(signals.next().await, order);
        }
        send(Number::USR2);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), signals.end()).await.is_err());
        send(Number::INT);
        signals.end().await;
    }

    #[tokio::test]
    async fn a_connection_hears_of_the_drain_also_afterwards() {
        let (start, mut drain) = Drain::new();
        let mut late = drain.clone();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), drain.started()).await.is_err());
        start.send_replace(true);
        drain.started().await;
        late.started().await;
    }
}
