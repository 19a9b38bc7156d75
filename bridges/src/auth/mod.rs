//! Who a client is: what it shows at a door becomes a [`Principal`](bus_schema::Principal), or a refusal that says what would do.
//!
//! The platform is an OAuth 2.1 resource server: it takes tokens of the issuers that its operator names, made for itself, and gives
//! out none. `gate` is what doors ask; `token` checks signed tokens with the keys in `keys` and `verified` remembers the genuine ones, `introspection` asks the issuer about
//! others, `api_keys` knows those that the operator wrote down, and `certificates` those whose owners come with one. `claims` makes the principal, `resource` and `challenge` tell
//! clients where to get a token. Nothing here logs a token or passes one on.

mod api_keys;
mod certificates;
mod challenge;
mod claims;
mod crypto;
mod gate;
mod introspection;
mod keys;
mod options;
mod resource;
mod token;
mod verified;

pub use api_keys::{NewApiKey, new_api_key};
pub use certificates::{CertificateName, CertificateOptions};
pub(crate) use challenge::Refusal;
pub use gate::OPERATOR;
pub(crate) use gate::{Admitted, Ended, Gate, NOT_HERE, Shown};
pub(crate) use keys::metadata_urls;
pub use options::{
    ApiKeyOptions, Auth, AuthError, AuthOptions, IntrospectionOptions, IssuerOptions, Scheme,
    SigningAlgorithm,
};
pub(crate) use resource::endpoint as endpoint_of;
