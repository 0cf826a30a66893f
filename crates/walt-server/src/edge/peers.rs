//! Limits the connections of a listener, in total and per peer, so that one peer cannot block the others.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Pause after the kernel refused to accept a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A listening socket.
pub trait Source: Sync {
    /// A connection, with its address.
    type Connection: Send;
    /// The identity of a peer.
    type Peer: Hash + Eq + Copy + Debug + Send;

    /// Whether too many connections of a peer are worth a warning: those of an account of this machine are.
    const IS_KNOWN: bool;

    /// Accepts a connection; the peer is `None` if it has disconnected already.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, Option<Self::Peer>)>> + Send;
}

impl Source for TcpListener {
    type Connection = (TcpStream, SocketAddr);
    type Peer = IpAddr;
    const IS_KNOWN: bool = false;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        let (stream, address) = TcpListener::accept(self).await?;
        Ok(((stream, address), Some(address.ip())))
    }
}

impl Source for UnixListener {
    type Connection = (UnixStream, unix::SocketAddr);
    /// The user id that the kernel recorded at connect(2).
    type Peer = u32;
    const IS_KNOWN: bool = true;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<u32>)> {
        let (stream, address) = UnixListener::accept(self).await?;
        let uid = stream.peer_cred().map(|c| c.uid()).ok();
        Ok(((stream, address), uid))
    }
}

/// A listener with limits.
#[derive(Debug)]
pub struct LimitedListener<L: Source> {
    /// The listener.
    pub listener: L,
    what: &'static str,
    slots: Arc<Semaphore>,
    peers: Arc<Peers<L::Peer>>,
    per_peer: usize,
}

/// A connection within the limits; counted until this is dropped.
#[derive(Debug)]
pub struct Admitted<K: Hash + Eq> {
    _slot: OwnedSemaphorePermit,
    _counted: Counted<K>,
}

impl<L: Source> LimitedListener<L> {
    /// At most `connections` are served at once, more wait in the kernel's queue. At most `per_peer` connections of
    /// one peer are served, more are closed. `what` names the listener in the log.
    pub fn new(listener: L, what: &'static str, connections: usize, per_peer: usize) -> Self {
        let slots = Arc::new(Semaphore::new(connections));
        Self { listener, what, slots, peers: Peers::new(), per_peer }
    }

    /// The next connection to serve.
    pub async fn next(&self) -> (L::Connection, L::Peer, Admitted<L::Peer>) {
        loop {
            // Invariant: the semaphore is never closed.
            let slot = self.slots.clone().acquire_owned().await.expect("open semaphore");
            let (connection, peer) = match self.listener.accept().await {
                Ok((connection, Some(peer))) => (connection, peer),
                Ok((_, None)) => continue,
                Err(e) => {
                    tracing::warn!("{}: accept failed: {e}", self.what);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.peers.admit(peer, self.per_peer) {
                Some(counted) => return (connection, peer, Admitted { _slot: slot, _counted: counted }),
                None if L::IS_KNOWN => {
                    tracing::warn!(
                        ?peer,
                        "{}: closed a connection: the user already has {}",
                        self.what,
                        self.per_peer
                    );
                }
                None => tracing::debug!(?peer, "{}: closed a connection: the peer has too many", self.what),
            }
        }
    }

    /// Serves connections for ever, each in a task of its own; failures are logged for debugging.
    pub async fn serve<F>(&self, serve: impl Fn(L::Connection, L::Peer) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
        L::Peer: Send + Sync + 'static,
    {
        loop {
            let (connection, peer, admitted) = self.next().await;
            let (what, work) = (self.what, serve(connection, peer));
            tokio::spawn(async move {
                if let Err(e) = work.await {
                    tracing::debug!(?peer, "{what}: {e:#}");
                }
                drop(admitted);
            });
        }
    }
}

/// Number of connections by peer (an address or a user). A peer without connections has no entry.
#[derive(Debug)]
pub struct Peers<K>(Mutex<HashMap<K, usize>>);

/// One connection of a peer; counted until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Hash + Eq> {
    peers: Arc<Peers<K>>,
    peer: K,
}

impl<K: Hash + Eq + Copy> Peers<K> {
    /// No connections.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Counts one more connection; `None` if the peer has `max` already.
    pub fn admit(self: &Arc<Self>, peer: K, max: usize) -> Option<Counted<K>> {
        let mut all = self.lock();
        let count = all.entry(peer).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted { peers: self.clone(), peer })
    }
}

impl<K> Peers<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // A panic cannot leave the map inconsistent.
        self.0.lock()
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut all = self.peers.lock();
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is accepted next, from the end of the list.
    struct Script(Mutex<Vec<std::result::Result<Option<u32>, io::ErrorKind>>>);

    impl Source for Script {
        type Connection = ();
        type Peer = u32;
        const IS_KNOWN: bool = false;

        async fn accept(&self) -> io::Result<((), Option<u32>)> {
            let step = self.0.lock().pop().expect("another one was not to be accepted");
            Ok(((), step?))
        }
    }

    #[tokio::test]
    async fn who_is_let_in() {
        let steps = vec![Ok(Some(8)), Ok(Some(7)), Ok(Some(7)), Ok(None), Err(io::ErrorKind::Other)];
        let gate = LimitedListener::new(Script(Mutex::new(steps)), "test", 2, 1);
        let ((), first, seven) = gate.next().await;
        let ((), second, _eight) = gate.next().await;
        assert_eq!((first, second), (7, 8), "the second one of 7 was closed");
        // All slots are taken: nothing is accepted before one is free.
        tokio::select! {
            biased;
            _ = gate.next() => panic!("a third one"),
            () = tokio::task::yield_now() => {}
        }
        drop(seven);
        gate.listener.0.lock().push(Ok(Some(7)));
        assert_eq!(gate.next().await.1, 7);
    }

    #[test]
    fn each_peer_has_its_own_bound() {
        let peers = Peers::new();
        let first = peers.admit(1, 2).unwrap();
        let _second = peers.admit(1, 2).unwrap();
        assert!(peers.admit(1, 2).is_none());
        assert!(peers.admit(2, 2).is_some());
        drop(first);
        assert!(peers.admit(1, 2).is_some());
        assert_eq!(peers.lock().len(), 1, "who is gone takes no room");
    }
}
