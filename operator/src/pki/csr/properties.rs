//! Requests of any subject and attributes: they are signed where they have one sound common name,
//! and then as the profile says.

use super::corpus::{profile, sign_and_compare};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Encode, Tag};
use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use std::sync::LazyLock;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// An attribute of a name: its type, the tag of its value, and the value.
type Word = (ObjectIdentifier, Tag, Vec<u8>);

/// An attribute of a request: its type, and its values with their tags.
type Attribute = (ObjectIdentifier, Vec<(Tag, Vec<u8>)>);

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const STRINGS: [Tag; 6] = [
    Tag::Utf8String,
    Tag::PrintableString,
    Tag::TeletexString,
    Tag::Ia5String,
    Tag::BmpString,
    Tag::OctetString,
];

proptest! {
    #[test]
    fn what_is_signed_is_the_profile(
        names in vec(vec(word(), 1..3), 0..4),
        attributes in vec((oid(), vec(any_value(), 0..3)), 0..4),
    ) {
        let request = request(&names, &attributes);
        let sound = names.iter().flatten().filter(|word| word.0 == COMMON_NAME).collect::<Vec<_>>();
        let expected = match sound[..] {
            [(_, Tag::Utf8String | Tag::PrintableString, text)] => is_given_away(text),
            _ => false,
        };
        let checked = validate(&request, &profile(), Origin::OtherNamespace);
        prop_assert_eq!(checked.is_ok(), expected, "{:?}: {:?}", names, checked);
        if let Ok(checked) = checked {
            prop_assert_eq!(checked.common_name.to_string().into_bytes(), sound[0].2.clone());
            sign_and_compare(&checked);
        }
    }

    #[test]
    fn no_bytes_make_the_check_panic(bytes in vec(any::<u8>(), 0..600), text in ".{0,200}") {
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes.as_slice()));
        for input in [STANDARD.encode(pem), STANDARD.encode(&bytes), STANDARD.encode(&text), text] {
            prop_assert!(validate(&input, &profile(), Origin::OtherNamespace).is_err());
        }
    }

    #[test]
    fn a_changed_byte_is_never_signed_as_something_else(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let name = (COMMON_NAME, Tag::Utf8String, b"central.collector2.forwarder".to_vec());
        let whole = STANDARD.decode(request(&[vec![name]], &[])).unwrap();
        let mut der = pem::parse(whole).unwrap().into_contents();
        let at = at.index(der.len());
        der[at] = to;
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
        if let Ok(checked) = validate(&STANDARD.encode(pem), &profile(), Origin::OtherNamespace) {
            prop_assert_eq!(checked.common_name.to_string(), "central.collector2.forwarder");
            prop_assert_eq!(checked.key.spki, KEY.subject_public_key_info());
        }
    }
}

/// The rule, written down once more: three words and more, the first one ours, the second nobody's.
fn is_given_away(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let words: Vec<_> = text.split('.').collect();
    let plain = |word: &&str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it))
    };
    text.len() <= 64
        && words.len() >= 3
        && words.iter().all(plain)
        && words[0] == "central"
        && words[1].len() <= 32
        && !["platform", "central", "zmq"].contains(&words[1].to_lowercase().as_str())
        && !words[2..]
            .iter()
            .any(|word| ["pubsub", "zmq"].contains(word))
}

fn word() -> impl Strategy<Value = Word> {
    let name = prop_oneof![
        6 => "central\\.[a-z][0-9]{1,4}\\.[a-zA-Z0-9_-]{1,10}",
        2 => "central\\.(platform|central|Platform|zmq|b7)\\.(x|pubsub|a\\.zmq)",
        1 => "(central|other|Central)\\.[a-z0-9.]{0,8}\\.[a-z0-9.]{0,60}",
        1 => ".{0,30}",
    ];
    let string = prop_oneof![8 => Just(0_usize), 2 => Just(1), 2 => 2..STRINGS.len()];
    prop_oneof![
        3 => (string, name).prop_map(|(tag, name)| (COMMON_NAME, STRINGS[tag], name.into_bytes())),
        2 => (oid(), any_value()).prop_map(|(oid, (tag, value))| (oid, tag, value)),
    ]
}

fn oid() -> impl Strategy<Value = ObjectIdentifier> {
    // Organization, mail address, extension request, challenge password, and one that nobody knows.
    let known = [
        "2.5.4.10",
        "1.2.840.113549.1.9.1",
        "1.2.840.113549.1.9.14",
        "1.2.840.113549.1.9.7",
        "1.2.3.4",
    ];
    prop::sample::select(known.map(ObjectIdentifier::new_unwrap).to_vec())
}

fn any_value() -> impl Strategy<Value = (Tag, Vec<u8>)> {
    let tags = [
        STRINGS.as_slice(),
        &[Tag::Sequence, Tag::Set, Tag::Null, Tag::Integer],
    ]
    .concat();
    (prop::sample::select(tags), vec(any::<u8>(), 0..60))
}

fn request(names: &[Vec<Word>], attributes: &[Attribute]) -> String {
    let pair = |(kind, tag, value): &Word| {
        element(
            Tag::Sequence,
            &[
                kind.to_der().unwrap(),
                element(*tag, std::slice::from_ref(value)),
            ],
        )
    };
    let names: Vec<_> = names
        .iter()
        .map(|words| element(Tag::Set, &words.iter().map(pair).collect::<Vec<_>>()))
        .collect();
    let attributes: Vec<_> = attributes
        .iter()
        .map(|(kind, values)| {
            let values: Vec<_> = values
                .iter()
                .map(|(tag, value)| element(*tag, std::slice::from_ref(value)))
                .collect();
            element(
                Tag::Sequence,
                &[kind.to_der().unwrap(), element(Tag::Set, &values)],
            )
        })
        .collect();
    let mut attributes = element(Tag::Sequence, &attributes);
    attributes[0] = 0xa0;
    let info = element(
        Tag::Sequence,
        &[
            vec![2, 1, 0],
            element(Tag::Sequence, &names),
            KEY.subject_public_key_info(),
            attributes,
        ],
    );
    let signature = [&[0], KEY.sign(&info).unwrap().as_slice()].concat();
    let algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02".to_vec();
    let whole = element(
        Tag::Sequence,
        &[info, algorithm, element(Tag::BitString, &[signature])],
    );
    STANDARD.encode(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", whole)))
}

fn element(tag: Tag, parts: &[Vec<u8>]) -> Vec<u8> {
    AnyRef::new(tag, &parts.concat()).unwrap().to_der().unwrap()
}
