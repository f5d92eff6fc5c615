//! Links and their ports: several requests for each, one after the other, and a last one that asks what the
//! kernel now holds.

use super::Executor;
use crate::{
    core::plan::{Action, Applied},
    model::{
        Attribute, Link, Notice, Object, Port,
        link::{iff, ifla},
    },
    netlink::{
        encode::{EncodeError, Request, complete},
        message::nl,
    },
};

/// Why an action ends before its last step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    Gone,
    Exists,
    Refused { errno: i32, message: Option<String> },
}

impl From<Stop> for Applied {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Gone => Self::Gone,
            Stop::Exists => Self::Exists,
            Stop::Refused { errno, message } => Self::Refused { errno, message },
        }
    }
}

type Step<T> = Result<T, Stop>;

impl Executor {
    /// Carries out an action on a link or a port. `all` are the actions it came with.
    pub(super) fn apply_to_link(&mut self, action: &Action, all: &[Action]) -> Applied {
        let applied = match action {
            Action::Add(Object::Link(link)) => self.add_link(link, all),
            Action::Replace(Object::Link(link)) => self.replace_link(link),
            Action::Add(Object::Port(port)) => self.add_port(port),
            Action::Replace(Object::Port(port)) => self.replace_port(port),
            Action::Remove(object) => self.remove(object),
            _ => Err(refused(EncodeError::Impossible("only routes stand beside others of the same key"))),
        };
        applied.unwrap_or_else(Applied::from)
    }

    fn add_link(&mut self, link: &Link, all: &[Action]) -> Step<Applied> {
        if let Some(held) = self.link(link.index)? {
            // The other end has been made before, and this one with it.
            return if is_end(link, &held) { self.configure(link, &held, true) } else { Ok(Applied::Exists) };
        }
        let peer = match link.kind.as_deref() {
            None => Err("the link is a device: no request makes it"),
            Some("tun") => Err("a tun or tap device is made by the program that opens /dev/net/tun"),
            // Empty they would only look restored: rtnetlink tells neither keys nor attached programs.
            Some("wireguard") => Err("a WireGuard device needs its keys, which only its owner knows"),
            Some("netkit") => Err("a netkit device needs its BPF programs, which only its owner has"),
            Some("veth") => other_end(link, all).map(Some),
            Some(_) => Ok(None),
        }
        .map_err(|why| refused(EncodeError::Impossible(why)))?;
        self.ask(&Request::create_link(link, peer.as_ref()).map_err(refused)?)?;
        match self.link(link.index)? {
            Some(held) => self.configure(link, &held, true),
            None => Ok(Applied::Differs(None)),
        }
    }

    fn replace_link(&mut self, link: &Link) -> Step<Applied> {
        let held = self.link(link.index)?.ok_or(Stop::Gone)?;
        if held.kind != link.kind {
            return Ok(Applied::Differs(Some(Object::Link(held))));
        }
        self.configure(link, &held, false)
    }

    /// Makes `held` what `link` is; with `anew` also in what is not guarded (alias, other names, address, queue
    /// length, group). A request that fails does not stop the next; its failure is told unless the link is, in
    /// the end, as it was asked for.
    fn configure(&mut self, link: &Link, held: &Link, anew: bool) -> Step<Applied> {
        let mut failure = None;
        for request in differences(link, held, anew) {
            if let Err(stop) = request.map_err(refused).and_then(|request| self.ask(&request)) {
                log::debug!("{}: a step failed: {stop:?}", link.name);
                failure.get_or_insert(stop);
            }
        }
        if link.name != held.name
            && let Err(stop) = self.rename(link, held)
        {
            failure.get_or_insert(stop);
        }
        if link.master() != held.master() {
            let mut request = Request::of_link(nl::RTM_NEWLINK, link.index);
            request.master(link.master().unwrap_or(0));
            if let Err(applied) = self.ask(&request) {
                failure.get_or_insert(applied);
            }
        }
        // Last, so that what happens to a link that comes up finds everything else in place.
        let change = (link.flags ^ held.flags) & iff::SETTABLE;
        if change != 0
            && let Err(stop) = self.ask(&Request::link_flags(link.index, link.flags, change))
        {
            failure.get_or_insert(stop);
        }
        let Some(now) = self.link(link.index)? else { return Ok(Applied::Gone) };
        Ok(match failure {
            _ if link.same(&now) => Applied::Verified,
            Some(stop @ Stop::Refused { .. }) => stop.into(),
            _ => Applied::Differs(Some(Object::Link(now))),
        })
    }

    /// Kernels before 6.2 rename only links that are down (`dev_change_name`).
    fn rename(&mut self, link: &Link, held: &Link) -> Step<()> {
        let mut request = Request::of_link(nl::RTM_NEWLINK, link.index);
        request.name(&link.name);
        match self.ask(&request) {
            Err(Stop::Refused { errno: libc::EBUSY, .. }) if held.is_up() => {
                self.ask(&Request::link_flags(link.index, 0, iff::UP))?;
                let renamed = self.ask(&request);
                self.ask(&Request::link_flags(link.index, held.flags, iff::UP))?;
                renamed.map(drop)
            }
            answer => answer.map(drop),
        }
    }

    fn add_port(&mut self, port: &Port) -> Step<Applied> {
        match self.link(port.link)? {
            Some(Link { port: Some(_), .. }) => Ok(Applied::Exists),
            Some(held) => self.set_port(port, &held),
            None => Err(Stop::Refused { errno: libc::ENODEV, message: Some("the link is not there".into()) }),
        }
    }

    fn replace_port(&mut self, port: &Port) -> Step<Applied> {
        let held = self.link(port.link)?.ok_or(Stop::Gone)?;
        self.set_port(port, &held)
    }

    fn set_port(&mut self, port: &Port, held: &Link) -> Step<Applied> {
        let mut held = held.port.clone();
        if held.as_ref().is_none_or(|held| port.master != held.master) {
            let mut request = Request::of_link(nl::RTM_NEWLINK, port.link);
            request.master(port.master);
            self.ask(&request)?;
            held = self.link(port.link)?.and_then(|link| link.port);
        }
        // The options of a port are those of its master's kind: they are understood only when it has one.
        let mut failure = None;
        let options = changed(&port.options, held.as_ref().map_or(&[], |held| &held.options));
        if let Some(kind) = port.kind.as_deref().filter(|_| !options.is_empty()) {
            for option in options {
                let mut request = Request::of_link(nl::RTM_NEWLINK, port.link);
                request.options(kind, std::slice::from_ref(&option)).map_err(refused)?;
                if let Err(stop) = self.ask(&request) {
                    log::debug!(
                        "option {} of a port of {kind} was not taken back: {stop:?}",
                        option.number()
                    );
                    failure.get_or_insert(stop);
                }
            }
        }
        match (self.link(port.link)?.and_then(|link| link.port), failure) {
            (Some(held), _) if port.same(&held) => Ok(Applied::Verified),
            (_, Some(stop)) => Err(stop),
            (held, None) => Ok(Applied::Differs(held.map(Object::Port))),
        }
    }

    fn remove(&mut self, object: &Object) -> Step<Applied> {
        let request = Request::delete(object).map_err(refused)?;
        match self.ask(&request) {
            Ok(_) => Ok(Applied::Verified),
            Err(Stop::Refused { errno: libc::ENODEV, .. }) => Ok(Applied::Gone),
            Err(stop) => Err(stop),
        }
    }

    /// What the kernel holds under this index.
    fn link(&mut self, index: u32) -> Step<Option<Link>> {
        match self.ask(&Request::get_link(index)) {
            Ok(notices) => Ok(notices.into_iter().find_map(|notice| match notice {
                Notice::Set { object: Object::Link(link), .. } if link.index == index => Some(link),
                _ => None,
            })),
            Err(Stop::Refused { errno: libc::ENODEV, .. }) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// One request and its answer.
    fn ask(&mut self, request: &Request) -> Step<Vec<Notice>> {
        let lost = |message: String| Stop::Refused { errno: libc::ENOBUFS, message: Some(message) };
        let answers = self
            .exchange(std::iter::once(request))
            .map_err(|error| lost(format!("the netlink socket failed: {error}")))?;
        let answer = answers.into_iter().next().unwrap_or_default();
        match answer.ack {
            Some((0, _)) => Ok(answer.echoes),
            Some((libc::EEXIST, _)) => Err(Stop::Exists),
            Some((errno, message)) => Err(Stop::Refused { errno, message }),
            None => Err(lost("the kernel's answer was lost".into())),
        }
    }
}

/// The requests that take `held` to `link`, but for name and flags.
fn differences(link: &Link, held: &Link, anew: bool) -> Vec<Result<Request, EncodeError>> {
    let mut requests = Vec::new();
    let mut with = |fill: &dyn Fn(&mut Request) -> Result<(), EncodeError>| {
        let mut request = Request::of_link(nl::RTM_NEWLINK, link.index);
        requests.push(fill(&mut request).map(|()| request));
    };
    if link.mtu != held.mtu && link.mtu != 0 {
        with(&|request| {
            request.mtu(link.mtu);
            Ok(())
        });
    }
    // One by one: some kinds refuse some options even if they stay what they are (VXLAN's port range).
    if let Some(kind) = &link.kind {
        for option in changed(&complete(kind, &link.data), &complete(kind, &held.data)) {
            with(&|request| request.data(kind, std::slice::from_ref(&option)));
        }
    }
    if let Some(mode) = link.addr_gen_mode.filter(|_| link.addr_gen_mode != held.addr_gen_mode) {
        with(&|request| request.addr_gen_mode(mode));
    }
    if !anew {
        return requests;
    }
    for attribute in changed(&link.attributes, &held.attributes) {
        match attribute.number() {
            // Set once and for all when the link is made.
            ifla::LINK | ifla::LINK_NETNSID | ifla::NUM_TX_QUEUES | ifla::NUM_RX_QUEUES => {}
            // A bridge without ports had none.
            ifla::ADDRESS if attribute.value.iter().all(|&byte| byte == 0) => {}
            ifla::PROP_LIST => {
                let mut request = Request::of_link(nl::RTM_NEWLINKPROP, link.index)
                    .with(nl::NLM_F_CREATE | nl::NLM_F_EXCL | nl::NLM_F_APPEND);
                let nest = Attribute { kind: attribute.kind | nl::NLA_F_NESTED, value: attribute.value };
                requests.push(request.attribute(&nest).map(|()| request));
            }
            _ => {
                let mut request = Request::of_link(nl::RTM_NEWLINK, link.index);
                requests.push(request.attribute(&attribute).map(|()| request));
            }
        }
    }
    requests
}

/// What of `asked` is not so in `held`.
fn changed(asked: &[Attribute], held: &[Attribute]) -> Vec<Attribute> {
    asked.iter().filter(|attribute| !held.contains(attribute)).cloned().collect()
}

/// Whether `held` is the veth that `link` was, made together with its other end.
fn is_end(link: &Link, held: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
        && held.kind == link.kind
        && held.attribute(ifla::LINK_NETNSID).is_none()
        && (held.attribute(ifla::LINK) == link.attribute(ifla::LINK) || held.name == link.name)
}

/// The other end of a veth: as it is to be, or with its index alone.
fn other_end(link: &Link, all: &[Action]) -> Result<Link, &'static str> {
    if link.attribute(ifla::LINK_NETNSID).is_some() {
        return Err("the other end of the veth was in another network namespace and is gone with it");
    }
    let end =
        |link: &Link| link.attribute(ifla::LINK).and_then(Attribute::as_u32).filter(|&index| index != 0);
    let index = end(link);
    // Either may have been heard of last when the other was gone already.
    let known = all.iter().find_map(|action| match action {
        Action::Add(Object::Link(other)) if Some(other.index) == index || end(other) == Some(link.index) => {
            Some(other.clone())
        }
        _ => None,
    });
    let index = known.as_ref().map(|other| other.index).or(index).ok_or("the veth had no other end")?;
    // `veth%d`: the kernel puts a number in.
    Ok(known.unwrap_or_else(|| Link { index, name: "veth%d".into(), ..Link::default() }))
}

fn refused(error: EncodeError) -> Stop {
    Stop::Refused { errno: error.errno(), message: Some(error.to_string()) }
}
