//! The socket of a connection, written in a measured pace: what comes within a moment goes out together.
//!
//! Each write costs a call of the system here, a wake of the broker's reader there, and whatever the broker does for each
//! of its wakes. A queue with little to do is not delayed: only writes that follow each other closely are.

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use std::{
    future::Future,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// From the begin of a write to that of the next, at least.
const PACE: Duration = Duration::from_micros(400);

type Plain = <Tokio as Reactor>::TcpStream;

/// Tokio, whose sockets are paced. Whoever drives one of them has a thread of its own, which may sleep.
/// The sockets end with `cut`.
pub fn runtime(cut: Cut) -> Runtime<RuntimeParts<Tokio, Paces>> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Paces { tokio: Tokio::current(), cut }))
}

/// Ends a connection of which nothing comes any more. lapin asks for no heartbeats while it closes one, and would wait
/// for the broker's consent for ever, with a thread and a socket.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<CutState>);

#[derive(Debug, Default)]
struct CutState {
    done: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    /// Whoever reads is told that the connection was aborted, now and from now on.
    pub fn cut(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        // Before it is looked at, so that none that comes in between is missed.
        self.0.reader.register(context.waker());
        if self.0.done.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Makes paced sockets.
#[derive(Debug, Clone)]
pub struct Paces {
    tokio: Tokio,
    cut: Cut,
}

impl Reactor for Paces {
    type TcpStream = Paced;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody asks for it: connections are made by this reactor.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Paced, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Paced>> + Send + 'static {
        let (connected, cut) = (self.tokio.tcp_connect_addr(address), self.cut.clone());
        async move { Ok(Paced { socket: connected.await?, written: None, cut }) }
    }
}

/// A socket that waits between two writes.
pub struct Paced {
    socket: Plain,
    /// When the last write began.
    written: Option<Instant>,
    cut: Cut,
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.cut.check(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut.check(context)?;
        Pin::new(&mut self.socket).poll_read_vectored(context, buffers)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written = Some(Instant::now());
        Pin::new(&mut self.socket).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written = Some(Instant::now());
        Pin::new(&mut self.socket).poll_write_vectored(context, buffers)
    }

    /// It is asked for before the frames are gathered for the next write, and sleeps until that is due.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let due = self.written.take().and_then(|written| PACE.checked_sub(written.elapsed()));
        if let Some(pause) = due {
            std::thread::sleep(pause);
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}
