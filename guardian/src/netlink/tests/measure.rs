//! What a write costs, beside a plain blocking socket, rtnetlink's own connection and `ip -batch`.
//!
//! Run with `cargo test --release -p route-guardian --lib -- --ignored --nocapture measure`.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use futures::StreamExt;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REQUEST};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{RouteNetlinkMessage, route::RouteMessage};
use rtnetlink::sys::Socket;

use super::{in_netns, ip};
use crate::{
    core::plan::{Action, Applied},
    model::{Notice, Route},
    netlink::{Executor, decode, dump_routes, encode::Request, frames, message::nl, socket},
};

const MANY: u32 = 10_000;
const ROUNDS: usize = 1000;

fn many() -> Vec<Route> {
    ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
    let routes = dump_routes(None).unwrap().routes;
    let model = routes.into_iter().find(|route| route.protocol == 17).unwrap();
    (0..MANY)
        .map(|index| {
            let mut route = model.clone();
            route.key.dst = format!("11.{}.{}.0/24", index / 256, index % 256).parse().unwrap();
            route
        })
        .collect()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!("{what:<44} p50 {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}", at(50), at(90), at(99));
}

fn batch(verb: &str, routes: &[Route]) -> Duration {
    let mut text = String::new();
    for route in routes {
        let _ = writeln!(text, "route {verb} {} via 10.0.0.2 proto 17", route.key.dst);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let started = Instant::now();
    ip(&format!("-batch {}", file.path().display()));
    started.elapsed()
}

/// The requests as datagrams, answered by blocking reads, echoes decoded and compared: the floor.
fn blocking(socket: &Socket, routes: &[Route]) {
    let mut datagram = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let request = Request::set(route, nl::NLM_F_CREATE | nl::NLM_F_EXCL).unwrap();
        let mut message: NetlinkMessage<Request> = request.into_message();
        message.header.sequence_number = index as u32;
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + message.buffer_len(), 0);
        message.serialize(&mut datagram[start..]);
    }
    socket.send_to(&datagram, &socket::kernel(), 0).unwrap();
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut acknowledged = 0;
    while acknowledged < routes.len() {
        buffer.clear();
        socket.recv(&mut buffer, 0).unwrap();
        for frame in frames(&buffer).map(Result::unwrap) {
            if frame.header.kind == nl::NLMSG_ERROR {
                assert_eq!(frame.payload[..4], [0; 4]);
                acknowledged += 1;
            } else if let Some(Notice::RouteSet { route, .. }) = decode(&frame).unwrap() {
                assert!(route.same(&routes[frame.header.seq as usize]));
            }
        }
    }
}

/// rtnetlink as it comes: a connection in a task of its own, typed messages, one request at a time.
async fn typed(handle: &mut rtnetlink::Handle, route: &Route) {
    let request = Request::set(route, 0).unwrap();
    let mut message: NetlinkMessage<Request> = request.into_message();
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let parsed = rtnetlink::packet_core::Parseable::parse(&bytes[16..]);
    let parsed: RouteMessage = parsed.unwrap();
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(parsed));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO | NLM_F_CREATE | NLM_F_EXCL;
    let mut replies = handle.request(message).unwrap();
    let mut echoes = 0;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(_) => echoes += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(echoes, 1);
}

#[test]
#[ignore = "a measurement"]
fn measure_writes() {
    in_netns(|| async {
        let routes = many();
        let one = routes[0].clone();
        let remove = [Action::Remove(one.clone())];
        let add = [Action::Add(one.clone())];
        let mut executor = Executor::open().unwrap();
        let socket = socket::open(4 << 20).unwrap();
        socket.set_cap_ack(true).unwrap();
        let (connection, mut handle, _unsolicited) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);

        let (mut ours, mut floor, mut crates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let applied = executor.apply(&add).await;
            ours.push(started.elapsed());
            assert_eq!(applied, [Applied::Verified]);
            executor.apply(&remove).await;

            let started = Instant::now();
            blocking(&socket, std::slice::from_ref(&one));
            floor.push(started.elapsed());
            executor.apply(&remove).await;

            let started = Instant::now();
            typed(&mut handle, &one).await;
            crates.push(started.elapsed());
            executor.apply(&remove).await;
        }
        report("one add, executor", ours);
        report("one add, blocking socket", floor);
        report("one add, rtnetlink's connection in a task", crates);

        let adds: Vec<_> = routes.iter().cloned().map(Action::Add).collect();
        for _ in 0..3 {
            let started = Instant::now();
            let applied = executor.apply(&adds).await;
            let elapsed = started.elapsed();
            assert!(applied.iter().all(|applied| *applied == Applied::Verified));
            println!("{MANY} adds, executor, in one apply:   {elapsed:>9.1?}");
            batch("del", &routes);

            let started = Instant::now();
            for part in routes.chunks(128) {
                blocking(&socket, part);
            }
            println!("{MANY} adds, blocking, 128 a datagram: {:>9.1?}", started.elapsed());
            batch("del", &routes);

            let elapsed = batch("add", &routes);
            println!("{MANY} adds, ip -batch:                {elapsed:>9.1?}");
            batch("del", &routes);
        }
    });
}
