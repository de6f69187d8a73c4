//! The structure of a certification request (RFC 2986, section 4), in strict DER (X.690): definite
//! and shortest lengths, nothing behind the last element of anything that is looked into.

use super::Rejection;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Header, Reader, SliceReader, Tag, TagNumber};
use spki::AlgorithmIdentifierRef;

/// A request, as far as it is of interest. Attributes have been walked over and are left behind.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// What the requester signed.
    pub(super) info: &'a [u8],
    /// The attributes of all relative distinguished names, in order.
    pub(super) subject: Vec<SubjectAttribute<'a>>,
    /// The subject public key info, with its header.
    pub(super) key: &'a [u8],
    /// How the request was signed.
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    /// The signature.
    pub(super) signature: BitStringRef<'a>,
}

/// One attribute of the subject.
#[derive(Debug)]
pub(super) struct SubjectAttribute<'a> {
    pub(super) kind: ObjectIdentifier,
    pub(super) value: AnyRef<'a>,
}

/// Reads a request.
pub(super) fn parse(request: &[u8]) -> Result<Request<'_>, Rejection> {
    let broken = |_| Rejection::Malformed("it is not valid DER, or cut short");
    let mut outer = SliceReader::new(request).map_err(broken)?;
    let (info, algorithm, signature) = outer
        .sequence(|reader| {
            Ok((
                reader.tlv_bytes()?,
                AlgorithmIdentifierRef::decode(reader)?,
                BitStringRef::decode(reader)?,
            ))
        })
        .map_err(broken)?;
    if !outer.is_finished() {
        return Err(Rejection::Malformed("there are bytes after its end"));
    }
    let (version, subject, key) = SliceReader::new(info)
        .and_then(|mut reader| {
            reader.sequence(|reader| {
                let version = u8::decode(reader)?;
                let subject = name(reader)?;
                let key = reader.tlv_bytes()?;
                walk_attributes(reader)?;
                Ok((version, subject, key))
            })
        })
        .map_err(|_| {
            Rejection::Malformed(
                "it must hold version, subject, key and [0] attributes in DER, and nothing else",
            )
        })?;
    if version != 0 {
        return Err(Rejection::Malformed("its version is not v1(0)"));
    }
    Ok(Request {
        info,
        subject,
        key,
        algorithm,
        signature,
    })
}

/// `Name ::= SEQUENCE OF SET OF SEQUENCE { type, value }` (RFC 5280, section 4.1.2.4).
fn name<'a>(reader: &mut impl Reader<'a>) -> der::Result<Vec<SubjectAttribute<'a>>> {
    let mut attributes = Vec::new();
    reader.sequence(|names| {
        while !names.is_finished() {
            let before = attributes.len();
            inside(names, Tag::Set, |set| {
                while !set.is_finished() {
                    attributes.push(set.sequence(|pair| {
                        Ok(SubjectAttribute {
                            kind: object_identifier(pair)?,
                            value: AnyRef::decode(pair)?,
                        })
                    })?);
                }
                Ok(())
            })?;
            if attributes.len() == before {
                return Err(Tag::Set.value_error());
            }
        }
        Ok(())
    })?;
    Ok(attributes)
}

/// `[0] IMPLICIT SET OF SEQUENCE { type, SET OF value }`. The values are not looked into.
fn walk_attributes<'a>(reader: &mut impl Reader<'a>) -> der::Result<()> {
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::N0,
    };
    inside(reader, tag, |attributes| {
        while !attributes.is_finished() {
            attributes.sequence(|attribute| {
                object_identifier(attribute)?;
                inside(attribute, Tag::Set, |values| {
                    while !values.is_finished() {
                        AnyRef::decode(values)?;
                    }
                    Ok(())
                })
            })?;
        }
        Ok(())
    })
}

/// An object identifier whose numbers are in their shortest form (X.690, section 8.19.2), which the
/// decoder does not look at.
fn object_identifier<'a>(reader: &mut impl Reader<'a>) -> der::Result<ObjectIdentifier> {
    let identifier = ObjectIdentifier::decode(reader)?;
    let mut begins = true;
    for byte in identifier.as_bytes() {
        if begins && *byte == 0x80 {
            return Err(Tag::ObjectIdentifier.non_canonical_error());
        }
        begins = *byte < 0x80;
    }
    Ok(identifier)
}

/// Reads the content of one element with this `tag`, to its end.
fn inside<'a, 'n, R: Reader<'a>, T>(
    reader: &'n mut R,
    tag: Tag,
    read: impl FnOnce(&mut der::NestedReader<'n, R>) -> der::Result<T>,
) -> der::Result<T> {
    let header = Header::decode(reader)?;
    header.tag.assert_eq(tag)?;
    reader.read_nested(header.length, read)
}
