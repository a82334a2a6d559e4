use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::config::{Config, Overrides};

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn every_taken_port_is_named_at_once() {
    let taken = [Port::bind("one", any()).expect("a free port"), Port::bind("two", any()).expect("a free port")];
    let mut listen = Config::load(None, &Overrides::default()).expect("defaults").config.listen;
    (listen.otlp_grpc, listen.otlp_http) = (taken[0].address, taken[1].address);
    (listen.zipkin, listen.http) = (any(), any());
    let text = Ports::bind(&listen).expect_err("taken").to_string();
    assert!(text.contains("listen.otlp_grpc") && text.contains("listen.otlp_http"), "{text}");
    assert!(!text.contains("listen.zipkin ="), "{text}");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_while_the_port_is_closed_already() {
    let port = Port::bind("test", any()).expect("a free port");
    let address = port.address;
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (arrived, release) = (Arc::clone(&arrived), Arc::clone(&release));
        move || async move {
            arrived.notify_one();
            release.notified().await;
            "kept"
        }
    };
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let router = Router::new().route("/slow", get(handler));
    port.serve(router, Arc::default(), Duration::from_secs(30), &tasks).expect("serving");
    let mut sender = TcpStream::connect(address).await.expect("connecting");
    sender.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sending");
    arrived.notified().await;

    let stopping = tokio::spawn({
        let tasks = tasks.clone();
        async move { tasks.stop().await }
    });
    // The port closes while the request is still being answered.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    let mut answer = String::new();
    sender.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("kept"), "{answer}");
    stopping.await.expect("stopped");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let port = Port::bind("test", any()).expect("a free port");
    let address = port.address;
    let begun = Arc::new(AtomicUsize::new(0));
    let handler = {
        let begun = Arc::clone(&begun);
        move || async move {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    };
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    port.serve(Router::new().route("/", get(handler)), Arc::default(), Duration::from_millis(20), &tasks)
        .expect("serving");
    let mut sender = TcpStream::connect(address).await.expect("connecting");
    sender.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sending");
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tasks.stop().await;
    let mut rest = Vec::new();
    drop(sender.read_to_end(&mut rest).await);
    assert!(rest.is_empty(), "no answer was made up");
}
