//! A capture as the command line follows it: pieces of pcapng as they come, and an end in order when it is interrupted.

use std::io;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{Client, ClientError, Failure, exchange, refusal};
use crate::api::{CAPTURE_HEADER, CaptureRequest};

impl Client {
    /// Captures until the daemon ends it, an interrupt asks it to, or `sink` refuses a piece of pcapng. A second
    /// interrupt does not wait for what is still under way. Must not be called from inside an asynchronous runtime.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where the lab has none of what is named, or the filter is none. An error of
    /// `sink` is handed back as the inner result.
    pub fn capture(
        &self,
        request: &CaptureRequest,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        let broken = |source| ClientError::Connection {
            socket: self.socket.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| broken(error.into()))?;
        let ended = runtime.block_on(self.follow(request, sink));
        match ended {
            Ok(End::Over(written)) => Ok(written),
            Ok(End::Refused(bytes)) => Err(refusal(&bytes)),
            Err(Failure::NobodyListens) => Err(ClientError::NotRunning(self.socket.clone())),
            Err(Failure::Other(source)) => Err(broken(source)),
        }
    }

    async fn follow(
        &self,
        request: &CaptureRequest,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<End, Failure> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(super::unconnected)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the runtime, and the daemon sees that nobody reads any more.
        tokio::spawn(connection);
        let body = Full::new(Bytes::from(serde_json::to_vec(request)?));
        let request = Request::post("/v1/captures")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(body)?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Ok(End::Refused(response.into_body().collect().await?.to_bytes()));
        }
        let id = response.headers().get(CAPTURE_HEADER).cloned();
        let mut body = response.into_body();
        let mut stopped = false;
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = async { tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () } } => {
                    if stopped {
                        return Ok(End::Over(Ok(())));
                    }
                    stopped = true;
                    let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
                    let path = format!("/v1/captures/{id}/stop");
                    exchange(&self.socket, Method::POST, &path, &()).await?;
                    continue;
                }
            };
            let Some(frame) = frame else {
                return Ok(End::Over(Ok(())));
            };
            if let Some(piece) = frame?.data_ref()
                && let Err(error) = sink(piece)
            {
                return Ok(End::Over(Err(error)));
            }
        }
    }
}

enum End {
    Over(io::Result<()>),
    Refused(Bytes),
}
