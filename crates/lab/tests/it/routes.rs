//! The routes of a site and those that a routing daemon writes, against the kernel's own answers.

use std::process::{Command, Stdio};
use std::time::Duration;

use ipnet::Ipv4Net;
use lab::{Namespace, RouteWatch, TableRoute, network, rootless, static_routes};

use crate::bring_up::{interface, namespace};
use crate::tun;

/// A table as the gateways' one.
const TABLE: u32 = 179;

pub(crate) fn site_answers_for_its_prefixes() {
    enter();
    let mut spec = namespace(
        "dc1",
        vec![
            interface("eth0", &["10.0.0.1/32"]),
            interface("eth1", &["10.0.0.1/32"]),
        ],
    );
    spec.own_prefixes = vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()];
    let site = Namespace::create().unwrap();
    let tuns = site.run(|| [tun::open("eth0"), tun::open("eth1")]);
    let azure = |prefixes: &[&str]| {
        prefixes
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect::<Vec<Ipv4Net>>()
    };
    site.run(|| {
        // Twice: what is there is not refused.
        network::configure(&spec).unwrap();
        network::configure(&spec).unwrap();
        ip(&["route", "add", "172.16.0.0/16", "dev", "eth1"]);
        let routes = [
            ("eth0".to_owned(), azure(&["10.1.0.0/16", "10.2.0.0/16"])),
            ("eth1".to_owned(), azure(&["10.3.0.0/16"])),
        ];
        static_routes::set(&routes).unwrap();
        static_routes::set(&routes).unwrap();
    })
    .unwrap();
    let leads = |to: &str| site.run(|| ip(&["-o", "route", "get", to])).unwrap();
    for (to, way) in [
        ("10.77.7.7", "dev lo"),
        ("10.1.0.4", "dev eth0"),
        ("10.3.0.4", "dev eth1"),
        ("8.8.8.8", "dev eth0"),
    ] {
        assert!(leads(to).contains(way), "{to}: {}", leads(to));
    }
    site.run(|| static_routes::set(&[("eth1".to_owned(), azure(&["10.1.0.0/16"]))]).unwrap())
        .unwrap();
    for (to, way) in [
        ("10.1.0.4", "dev eth1"),
        ("10.2.0.4", "dev lo"),
        // Not ours to remove.
        ("172.16.0.4", "dev eth1"),
    ] {
        assert!(leads(to).contains(way), "{to}: {}", leads(to));
    }
    drop(tuns);
}

pub(crate) fn a_table_is_watched_from_outside() {
    enter();
    let namespace = Namespace::create().unwrap();
    let run = |arguments: &[&str]| drop(namespace.run(|| ip(arguments)).unwrap());
    run(&["link", "set", "lo", "up"]);
    run(&["addr", "add", "10.0.0.1/24", "dev", "lo"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let watch = RouteWatch::open(&namespace, TABLE).unwrap();
        let changed = async || {
            tokio::time::timeout(Duration::from_secs(5), watch.changed())
                .await
                .expect("no news")
        };
        assert_eq!(watch.routes().await.unwrap(), []);
        run(&[
            "route",
            "add",
            "192.168.1.0/24",
            "via",
            "10.0.0.2",
            "table",
            "179",
        ]);
        changed().await;
        run(&["route", "add", "192.168.9.0/24", "via", "10.0.0.2"]);
        run(&["route", "add", "blackhole", "192.168.8.0/24", "table", "179"]);
        let hops = ["nexthop", "via", "10.0.0.3", "nexthop", "via", "10.0.0.2"];
        run(&[&["route", "add", "default", "table", "179"][..], &hops].concat());
        changed().await;
        let route = |prefix: &str, next_hops: &[&str]| TableRoute {
            prefix: prefix.parse().unwrap(),
            next_hops: next_hops.iter().map(|hop| hop.parse().unwrap()).collect(),
        };
        let expected = [
            route("0.0.0.0/0", &["10.0.0.2", "10.0.0.3"]),
            route("192.168.1.0/24", &["10.0.0.2"]),
        ];
        assert_eq!(watch.routes().await.unwrap(), expected);
        watch.flush().await.unwrap();
        assert_eq!(watch.routes().await.unwrap(), []);
        let left = namespace.run(|| ip(&["route"])).unwrap();
        assert!(left.contains("192.168.9.0/24"), "of another table: {left}");
    });
}

fn enter() {
    if !rootless::privileged() {
        rootless::enter_user_namespace().unwrap();
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}
