//! Subjects that try to be somebody else, or nobody.

use crate::der::{COMMON_NAME, ORGANIZATION, UNKNOWN, seq, tlv};
use crate::draft::{Draft, armoured, attribute, common_name, rdn};
use crate::{Case, own_name};

#[rustfmt::skip] // One case, one line.
pub fn cases() -> Vec<Case> {
    let case = |name, expected, what, subject: Vec<u8>| {
        let draft = Draft { subject, ..Draft::new("unused") };
        Case { name, expected, what, text: armoured(&draft.der()).into_bytes() }
    };
    // Exactly this common name.
    let called = |name, expected, what, text: &str| case(name, expected, what, seq(&[&rdn(&[&common_name(text)])]));
    // The sound common name, in another string type.
    let typed = |name, expected, what, tag: u8, encode: &dyn Fn(&str) -> Vec<u8>| {
        case(name, expected, what, seq(&[&rdn(&[&attribute(COMMON_NAME, &tlv(tag, &encode(&own_name(name))))])]))
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    let organization = attribute(ORGANIZATION, &tlv(12, b"Elsewhere"));
    let own = |name: &str| common_name(&own_name(name));
    let (invalid, reserved, foreign) = ("InvalidCommonName", "ReservedName", "WrongInstance");
    vec![
        // How many, and where.
        case("name-empty-subject", invalid, "an empty subject", seq(&[])),
        case("name-only-organization", invalid, "no common name", seq(&[&rdn(&[&organization])])),
        case("name-two", invalid, "two common names", seq(&[&rdn(&[&own("name-two")]), &rdn(&[&common_name("central.hostile.other")])])),
        case("name-twice", invalid, "the same common name twice", seq(&[&rdn(&[&own("name-twice")]), &rdn(&[&own("name-twice")])])),
        case("name-two-in-one-rdn", invalid, "two common names in one relative distinguished name", seq(&[&rdn(&[&own("name-two-in-one-rdn"), &common_name("central.hostile.other")])])),
        case("name-second-of-another-type", invalid, "a second common name of a type nobody reads", seq(&[&rdn(&[&own("x")]), &rdn(&[&attribute(COMMON_NAME, &tlv(30, b"\0a"))])])),
        case("name-multi-valued", "signed", "a common name and an organization in one relative distinguished name", seq(&[&rdn(&[&own("name-multi-valued"), &organization])])),
        case("name-many-others", "signed", "five hundred organizations", seq(&[&organization_many(500), &rdn(&[&own("name-many-others")])])),
        case("name-wide-rdn", "signed", "five hundred attributes in one relative distinguished name, in the wrong order", {
            let many: Vec<_> = (0..500_u16).rev().map(|n| attribute(UNKNOWN, &tlv(12, &n.to_be_bytes()))).collect();
            seq(&[&rdn(&[&many.concat()]), &rdn(&[&own("name-wide-rdn")])])
        }),
        case("name-common-name-in-value", "signed", "a common name inside the value of another attribute", seq(&[&rdn(&[&attribute(UNKNOWN, &seq(&[&rdn(&[&common_name("volttron-operator")])]))]), &rdn(&[&own("name-common-name-in-value")])])),
        case("name-slashes", "signed", "an organization that looks like more of a name", seq(&[&rdn(&[&attribute(ORGANIZATION, &tlv(12, b"x/CN=volttron-operator,CN=admin"))]), &rdn(&[&own("name-slashes")])])),
        case("name-bad-organization", "signed", "an organization that is no UTF-8", seq(&[&rdn(&[&attribute(ORGANIZATION, &tlv(12, &[0xff, 0xfe, 0xc0, 0x80]))]), &rdn(&[&own("name-bad-organization")])])),
        case("name-as-dn-qualifier", invalid, "the name under the object identifier of dnQualifier", seq(&[&rdn(&[&attribute(b"\x06\x03\x55\x04\x2e", &tlv(19, b"central.hostile.q"))])])),
        case("name-padded-oid", "MalformedRequest", "the object identifier of a common name, not in its shortest form", seq(&[&rdn(&[&attribute(b"\x06\x04\x55\x80\x04\x03", &tlv(12, b"volttron-operator"))]), &rdn(&[&own("x")])])),
        // String types.
        typed("name-printable", "signed", "PrintableString", 19, &bytes),
        typed("name-t61", invalid, "T61String", 20, &bytes),
        typed("name-ia5", invalid, "IA5String", 22, &bytes),
        typed("name-visible", invalid, "VisibleString", 26, &bytes),
        typed("name-bmp", invalid, "BMPString", 30, &|text| text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        typed("name-universal", "MalformedRequest", "UniversalString", 28, &|text| text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()),
        typed("name-octets", invalid, "OCTET STRING", 4, &bytes),
        typed("name-constructed", "MalformedRequest", "UTF8String in two pieces, as BER allows", 0x2c, &|text| [tlv(12, &text.as_bytes()[..8]), tlv(12, &text.as_bytes()[8..])].concat()),
        typed("name-sequence", invalid, "a SEQUENCE in place of a string", 0x30, &|text| tlv(12, text.as_bytes())),
        typed("name-latin1", invalid, "Latin-1 that is no UTF-8", 12, &|text| [text.as_bytes(), &[0xe4]].concat()),
        typed("name-overlong-utf8", invalid, "a dot in an overlong form of UTF-8", 12, &|text| [text.as_bytes(), &[0xc0, 0xae], b"x"].concat()),
        typed("name-surrogates", invalid, "surrogates in UTF-8", 12, &|text| [text.as_bytes(), &[0xed, 0xa0, 0x80]].concat()),
        // Characters.
        called("name-empty", invalid, "an empty common name", ""),
        called("name-homoglyph", invalid, "a Cyrillic letter for a Latin one", "\u{441}entral.hostile.agent"),
        called("name-homoglyph-later", invalid, "the same in the identity", "central.hostile.\u{430}gent"),
        called("name-fullwidth-dot", invalid, "a fullwidth full stop for a dot", "central\u{ff0e}hostile\u{ff0e}agent"),
        called("name-combining", invalid, "a combining accent", "central.hostile.agente\u{301}"),
        called("name-bom", invalid, "a byte order mark", "\u{feff}central.hostile.agent"),
        called("name-zero-width", invalid, "a zero-width space", "central.hostile.age\u{200b}nt"),
        called("name-right-to-left", invalid, "a right-to-left override", "central.hostile.\u{202e}tnega"),
        called("name-nul", invalid, "NUL, where a C program stops reading", "central.hostile.agent\0.elsewhere"),
        called("name-leading-nul", invalid, "NUL at the beginning", "\0central.hostile.agent"),
        called("name-newline", invalid, "a newline", "central.hostile.agent\nx"),
        called("name-trailing-newline", invalid, "a newline at the end", "central.hostile.agent\n"),
        called("name-trailing-blank", invalid, "a blank at the end", "central.hostile.agent "),
        called("name-leading-blank", invalid, "a blank at the beginning", " central.hostile.agent"),
        called("name-trailing-dot", invalid, "a dot at the end", "central.hostile.agent."),
        called("name-leading-dot", invalid, "a dot at the beginning", ".central.hostile.agent"),
        called("name-double-dot", invalid, "two dots", "central.hostile..agent"),
        called("name-comma", invalid, "a comma, by which RabbitMQ joins common names", "central.hostile.agent,central.hostile.other"),
        called("name-wildcard", invalid, "a wildcard of topics", "central.hostile.*"),
        called("name-hash", invalid, "the other wildcard", "central.hostile.#"),
        called("name-regex", invalid, "a regular expression", "central.hostile.(a|b)"),
        called("name-slash", invalid, "a slash", "central.hostile.a/../b"),
        called("name-percent", invalid, "percent encoding", "central.hostile.%61"),
        called("name-quotes", invalid, "quotes and braces", "central.hostile.\"}],\"x\":[{\""),
        called("name-escape", invalid, "control characters of a terminal", "central.hostile.\u{1b}[2Jx"),
        called("name-65", invalid, "65 characters", &format!("central.hostile.{}", "x".repeat(49))),
        called("name-64", "signed", "64 characters", &format!("central.hostile.{}", "x".repeat(48))),
        called("name-10000", invalid, "ten thousand characters", &format!("central.hostile.{}", "x".repeat(10_000))),
        called("name-two-words", invalid, "no identity", "central.hostile"),
        called("name-one-word", invalid, "one word", "central"),
        called("name-many-words", "signed", "an identity of many words", "central.hostile.a.b.c.d.e.f.g.h"),
        // Others' names.
        called("name-of-the-operator", invalid, "the operator's account on the broker", "volttron-operator"),
        called("name-guest", invalid, "RabbitMQ's default account", "guest"),
        called("name-other-instance", foreign, "another instance", "elsewhere.hostile.agent"),
        called("name-longer-instance", foreign, "an instance whose name begins like this one's", "central2.hostile.agent"),
        called("name-other-case", foreign, "the instance in capitals", "CENTRAL.hostile.agent"),
        called("name-platform-driver", reserved, "the platform driver of the instance", "central.platform.driver"),
        called("name-platform-capital", reserved, "the same in other letters", "central.Platform.driver"),
        called("name-control", reserved, "the control service", "central.control.connection"),
        called("name-config", reserved, "the configuration store", "central.config.store"),
        called("name-keydiscovery", reserved, "key discovery", "central.KeyDiscovery.x"),
        called("name-proxy-router", reserved, "the proxy router", "central.zmq.proxy.router"),
        called("name-router", reserved, "the router", "central.router.x"),
        called("name-web", reserved, "the platform's web service", "central.platform_web.x"),
        called("name-master-web", reserved, "the same before VOLTTRON 8", "central.master_web.x"),
        called("name-volttron-central", reserved, "VOLTTRON Central", "central.volttron.central"),
        called("name-volttron-other", "signed", "an instance that is called volttron", "central.volttron.forwarder"),
        called("name-queue", reserved, "a queue of another agent", "central.hostile.agent.pubsub.0815"),
        called("name-queue-of-local", reserved, "a queue of a local agent", "central.forwarder.pubsub.0815"),
        called("name-queue-zmq", reserved, "a queue of another agent, for ZeroMQ", "central.hostile.agent.ZMQ.x"),
        called("name-at-home", "WrongNamespace", "a remote that calls itself like the instance", "central.central.forwarder"),
        called("name-at-home-capital", "WrongNamespace", "the same in other letters", "central.CENTRAL.forwarder"),
    ]
}

fn organization_many(count: usize) -> Vec<u8> {
    rdn(&[&attribute(ORGANIZATION, &tlv(12, b"x"))]).repeat(count)
}
