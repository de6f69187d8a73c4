//! Why a request is not signed.

use super::MAX_PEM_BYTES;
use volttron_crds::InvalidName;

/// Why a request is not signed. [`Self::reason`] is the condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `spec.request` is not base64 (RFC 4648).
    #[error("spec.request is not base64: encode the PEM file with `base64 -w0`")]
    NotBase64,
    /// Longer than [`MAX_PEM_BYTES`].
    #[error("the signing request is {0} bytes long; at most {MAX_PEM_BYTES} are accepted")]
    TooLarge(usize),
    /// Not one PEM block of a signing request (RFC 7468).
    #[error("spec.request does not decode to one PEM block CERTIFICATE REQUEST: {0}")]
    NotPem(&'static str),
    /// Not DER of a certification request, or something follows it.
    #[error("the PEM block is no PKCS #10 certification request: {0}")]
    Malformed(&'static str),
    /// A signature algorithm that is not accepted.
    #[error(
        "the request is signed with {0}; accepted are RSA or ECDSA (P-256, P-384) with SHA-256, \
         SHA-384 or SHA-512"
    )]
    UnsupportedSignature(String),
    /// A key that is not accepted.
    #[error("the public key is not accepted: {0}")]
    UnsupportedKey(String),
    /// The signature is not by the key in the request.
    #[error("the request's signature was not made by the key in it")]
    BadSignature,
    /// The subject has no common name.
    #[error("the subject has no common name; it must be <instance>.<local instance>.<identity>")]
    NoCommonName,
    /// The subject has more than one common name.
    #[error("the subject has {0} common names; it must have exactly one")]
    SeveralCommonNames(usize),
    /// The common name is of a string type that is not accepted.
    #[error("the common name is neither a UTF8String nor a PrintableString")]
    CommonNameType,
    /// The common name is no VOLTTRON name.
    #[error("the subject's common name is refused: {0}")]
    InvalidCommonName(#[from] InvalidName),
    /// The common name begins with another instance's name.
    #[error("common name {common_name} is not of this instance: it must begin with {instance:?}")]
    OtherInstance {
        /// The name that was asked for.
        common_name: String,
        /// The instance that was asked.
        instance: String,
    },
    /// The common name is, or could be taken for, one that is not given away.
    #[error("common name {0} is reserved: {1}")]
    Reserved(String, &'static str),
    /// The remote calls itself like the instance, and the request is not from the instance's
    /// namespace.
    #[error(
        "common name {0} is that of an agent at home on the instance: file the request in the \
         instance's namespace, or give the remote an instance name of its own"
    )]
    HomeNamespaceOnly(String),
}

impl Rejection {
    /// The `reason` of the condition: one word in CamelCase, as the API conventions want it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotBase64 => "InvalidBase64",
            Self::TooLarge(_) => "RequestTooLarge",
            Self::NotPem(_) => "InvalidPEM",
            Self::Malformed(_) => "MalformedRequest",
            Self::UnsupportedSignature(_) => "UnsupportedSignature",
            Self::UnsupportedKey(_) => "UnsupportedKey",
            Self::BadSignature => "InvalidSignature",
            Self::NoCommonName
            | Self::SeveralCommonNames(_)
            | Self::CommonNameType
            | Self::InvalidCommonName(_) => "InvalidCommonName",
            Self::OtherInstance { .. } => "WrongInstance",
            Self::Reserved(..) => "ReservedName",
            Self::HomeNamespaceOnly(_) => "WrongNamespace",
        }
    }
}
