//! Where the command line is heard. The broker lets its user `cli` speak to the registry here and nowhere else, so whoever has that user's
//! password can be nobody but the command line.

use std::sync::Arc;

use bus_schema::{
    Request, RpcError,
    audit::{Kind, Record},
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{McpServer, Outcome, Parts};

use super::RegistryServer;

/// The registry, for the command line.
pub(super) struct CommandLine(pub(super) Arc<RegistryServer>);

impl McpServer for CommandLine {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        if request.principal.is_command_line() {
            return Arc::clone(&self.0).handle(request, parts);
        }
        // Whom it names is the word of who has sent it.
        let record = Record::refused(Kind::Forgery, "not_the_command_line")
            .at(&request.server)
            .asking(&request.method, None)
            .because("only the command line is heard here, and the request names somebody else");
        self.0.bus.audit().put(Record {
            tenant: request.principal.tenant.clone(),
            ..record
        });
        let error = RpcError::invalid_request("only the command line is heard here, as `cli:<user>`");
        let outcome = Outcome::error_for(&request.body.0, &error);
        async move { outcome }.boxed()
    }
}
