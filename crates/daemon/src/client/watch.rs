//! What happens in a lab, followed as server-sent events.

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Client, ClientError, Failure, refusal};

/// The longest event: the rates of some ten thousand NICs.
const EVENT_LIMIT_BYTES: usize = 4 << 20;

impl Client {
    /// Calls `each` with every event and its data, until it says false or the daemon ends. Must not be called from inside
    /// an asynchronous runtime.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where too many watch.
    pub fn watch(&self, each: impl FnMut(&str, Value) -> bool) -> Result<(), ClientError> {
        let broken = |source| ClientError::Connection {
            socket: self.socket.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| broken(error.into()))?;
        match runtime.block_on(self.listen(each)) {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(refusal(&refused)),
            Err(Failure::NobodyListens) => Err(ClientError::NotRunning(self.socket.clone())),
            Err(Failure::Other(source)) => Err(broken(source)),
        }
    }

    /// The body of a refusal, or None at the end.
    async fn listen(&self, mut each: impl FnMut(&str, Value) -> bool) -> Result<Option<Bytes>, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(super::unconnected)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get("/v1/watch").header("host", "localhost");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if !response.status().is_success() {
            return Ok(Some(response.into_body().collect().await?.to_bytes()));
        }
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Some(piece) = frame?.data_ref() {
                text.extend_from_slice(piece);
            }
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                if let Some((name, data)) = read(&event)
                    && !each(&name, data)
                {
                    return Ok(None);
                }
            }
            if text.len() > EVENT_LIMIT_BYTES {
                return Err(Failure::Other("an event without end".into()));
            }
        }
        Ok(None)
    }
}

/// None of a comment, which keeps the connection alive.
fn read(event: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(event).ok()?;
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start))
    };
    let data = serde_json::from_str(field("data")?).ok()?;
    Some((field("event")?.to_owned(), data))
}
