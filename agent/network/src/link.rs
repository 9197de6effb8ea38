//! Links, addresses, routes and neighbours over rtnetlink: each function one kernel request, or none when it is already so.

use std::{io, net::Ipv4Addr, os::fd::RawFd};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
        neighbour::NeighbourState,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};

use crate::{Error, Ipv4Net};

/// Marks our routes in `ip route`, as a routing daemon's are (`rtnetlink(7)`, `rtm_protocol`; numbers above 4 are free to
/// use, and this one is in no list of known daemons).
const PROTOCOL: u8 = 67;

/// A route's hardware address.
pub(crate) type Mac = [u8; 6];

/// Requests to the kernel for one network namespace: that of the thread it is made on.
pub(crate) struct Links {
    runtime: tokio::runtime::Runtime,
}

/// A link as far as this crate cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
}

impl Links {
    pub(crate) fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|source| Error::Socket { source })?;
        Ok(Self { runtime })
    }

    /// Runs requests over one socket. Nothing is kept between sessions: an idle network costs nothing.
    pub(crate) fn session<T>(&self, work: impl AsyncFnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        self.runtime.block_on(async {
            let (connection, handle, _unsolicited) =
                rtnetlink::new_connection().map_err(|source| Error::Socket { source })?;
            let session = Session { handle };
            tokio::select! {
                biased;
                result = work(&session) => result,
                () = connection => Err(Error::Socket { source: io::ErrorKind::ConnectionAborted.into() }),
            }
        })
    }
}

/// Requests over one socket.
pub(crate) struct Session {
    handle: Handle,
}

impl Session {
    pub(crate) async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| failed("list", "links", e))?;
        Ok(messages.iter().map(Link::from).collect())
    }

    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::from)),
            Err(error) if errno(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(failed("find interface", name, error)),
        }
    }

    pub(crate) async fn need(&self, name: &str) -> Result<Link, Error> {
        self.link(name).await?.ok_or_else(|| Error::LinkGone { name: name.to_owned() })
    }

    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let request = self.handle.link().add(LinkBridge::new(name).build()).execute();
        request.await.map_err(|e| failed("add bridge", name, e))
    }

    /// A pair of interfaces, the peer in another network namespace from its first instant.
    pub(crate) async fn add_veth(&self, host: &VethEnd<'_>, peer: &VethEnd<'_>, netns: RawFd) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.name)
            .mtu(peer.mtu)
            .address(peer.mac.to_vec())
            .setns_by_fd(netns)
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(host.name, "")
            .mtu(host.mtu)
            .address(host.mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.handle.link().add(message).execute().await.map_err(|e| failed("add interface pair", host.name, e))
    }

    pub(crate) async fn up(&self, link: &Link) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.handle.link().set(message).execute().await.map_err(|e| failed("set up interface", &link.name, e))
    }

    /// Removes a link; one that is gone is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<bool, Error> {
        let Some(link) = self.link(name).await? else {
            return Ok(false);
        };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(nix::libc::ENODEV) => Ok(false),
            Err(error) => Err(failed("remove interface", name, error)),
        }
    }

    /// Leaves the link with exactly this IPv4 address, as a /32.
    pub(crate) async fn set_address(&self, link: &Link, address: Ipv4Addr) -> Result<(), Error> {
        let request = self.handle.address().get().set_link_index_filter(link.index).execute();
        let present: Vec<_> = request.try_collect().await.map_err(|e| failed("list addresses of", &link.name, e))?;
        let mut there = false;
        for message in present {
            if message.header.family != AddressFamily::Inet {
                continue;
            }
            let own = message
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, AddressAttribute::Local(ip) if *ip == address));
            if own && message.header.prefix_len == 32 {
                there = true;
            } else {
                let request = self.handle.address().del(message).execute();
                request.await.map_err(|e| failed("remove old address of", &link.name, e))?;
            }
        }
        if there {
            return Ok(());
        }
        let request = self.handle.address().add(link.index, address.into(), 32).execute();
        request.await.map_err(|e| failed("add address", format!("{address} to {}", link.name), e))
    }

    /// A route to one address, straight onto the link.
    pub(crate) async fn route_host(&self, to: Ipv4Addr, link: &Link, source: Option<Ipv4Addr>) -> Result<(), Error> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .output_interface(link.index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::from(PROTOCOL));
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        let request = self.handle.route().add(route.build()).replace().execute();
        request.await.map_err(|e| failed("add route to", format!("{to} on {}", link.name), e))
    }

    pub(crate) async fn route_default(&self, gateway: Ipv4Addr, link: &Link) -> Result<(), Error> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(link.index)
            .protocol(RouteProtocol::from(PROTOCOL))
            .build();
        let request = self.handle.route().add(route).replace().execute();
        request.await.map_err(|e| failed("add default route via", format!("{gateway} on {}", link.name), e))
    }

    /// Answers for every address of the range that has no better route.
    pub(crate) async fn route_unreachable(&self, range: &Ipv4Net) -> Result<(), Error> {
        let request = self.handle.route().add(unreachable(range)).replace().execute();
        request.await.map_err(|e| failed("add unreachable route", range, e))
    }

    pub(crate) async fn delete_unreachable(&self, range: &Ipv4Net) -> Result<bool, Error> {
        match self.handle.route().del(unreachable(range)).execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(nix::libc::ESRCH) => Ok(false),
            Err(error) => Err(failed("remove unreachable route", range, error)),
        }
    }

    pub(crate) async fn neighbour(&self, ip: Ipv4Addr, mac: &Mac, link: &Link) -> Result<(), Error> {
        let request = self
            .handle
            .neighbours()
            .add(link.index, ip.into())
            .link_layer_address(mac)
            .state(NeighbourState::Permanent)
            .replace()
            .execute();
        request.await.map_err(|e| failed("add neighbour", format!("{ip} on {}", link.name), e))
    }

    /// Every IPv4 route of every table that is not a default route.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Error> {
        Ok(self.route_messages().await?.iter().filter_map(Route::of).collect())
    }

    /// The largest packet of the interface the default route leaves by: the one of the lowest metric in the main table.
    pub(crate) async fn way_out_mtu(&self) -> Result<Option<u32>, Error> {
        let messages = self.route_messages().await?;
        let Some((_, device)) = messages.iter().filter_map(default_route).min() else { return Ok(None) };
        Ok(self.links().await?.into_iter().find(|link| link.index == device).map(|link| link.mtu))
    }

    async fn route_messages(&self) -> Result<Vec<RouteMessage>, Error> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut all = all;
        // A filter on these fields would hide routes of other tables and kinds.
        all.header.table = 0;
        all.header.protocol = RouteProtocol::Unspec;
        all.header.scope = RouteScope::Universe;
        all.header.kind = RouteType::Unspec;
        self.handle.route().get(all).execute().try_collect().await.map_err(|e| failed("list", "routes", e))
    }
}

/// One end of a pair of interfaces.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
}

/// A route of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Net,
    pub(crate) device: Option<u32>,
    pub(crate) kind: RouteType,
    pub(crate) ours: bool,
}

impl Route {
    fn of(message: &RouteMessage) -> Option<Self> {
        let to = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })?;
        let device = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Some(Self {
            to: Ipv4Net::new(to, message.header.destination_prefix_length)?,
            device,
            kind: message.header.kind,
            ours: message.header.protocol == RouteProtocol::from(PROTOCOL),
        })
    }
}

/// Metric and device of a default route.
fn default_route(message: &RouteMessage) -> Option<(u32, u32)> {
    let header = &message.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let (mut metric, mut device) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    Some((metric, device?))
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, name: String::new(), mac: Vec::new(), mtu: 0 };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        link
    }
}

fn unreachable(range: &Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix())
        .kind(RouteType::Unreachable)
        .protocol(RouteProtocol::from(PROTOCOL))
        .build()
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

fn failed(step: &'static str, object: impl ToString, error: rtnetlink::Error) -> Error {
    let source = match &error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        _ => io::Error::other(error),
    };
    Error::Link { step, object: object.to_string(), source }
}
