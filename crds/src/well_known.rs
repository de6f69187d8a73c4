//! Annotations, labels, finalizers and field managers that users and programs rely on.

/// Annotation on a request: `approved` or `denied`; the latest value holds.
pub const DECISION: &str = "volttron.org/decision";
/// Annotation on a request: why it was approved or denied, in the approver's words.
pub const REASON: &str = "volttron.org/reason";
/// Annotation on a request: the user who made the decision, stamped by the admission policy.
pub const DECIDED_BY: &str = "volttron.org/decided-by";
/// Annotation on a request: name of the pod that waits for it; a denial is reported on that pod.
pub const POD_NAME: &str = "volttron.org/pod-name";
/// Annotation on a request: UID of the pod that waits for it.
pub const POD_UID: &str = "volttron.org/pod-uid";
/// Annotation on an instance: a value that differs from the last one starts a rotation of its CA.
pub const ROTATE_CA: &str = "volttron.org/rotate-ca";

/// Label on everything the controller makes for an instance: the instance's name.
pub const INSTANCE_LABEL: &str = "volttron.org/instance";
/// Label on everything the controller makes for an instance: the instance's namespace.
pub const INSTANCE_NAMESPACE_LABEL: &str = "volttron.org/instance-namespace";
/// Label on everything the controller makes for a request: the request's name, or its hash where
/// the name is no label value.
pub const REQUEST_LABEL: &str = "volttron.org/request";
/// Kubernetes' label for the program that manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`] on what the controller makes.
pub const MANAGED_BY: &str = "volttron-operator";

/// Finalizer on instances and requests: the controller cleans up outside the namespace first.
pub const FINALIZER: &str = "volttron.org/cleanup";
/// Field manager of the controller in server-side apply.
pub const CONTROLLER_FIELD_MANAGER: &str = "volttron-controller";
/// Field manager of the sidecar.
pub const SIDECAR_FIELD_MANAGER: &str = "volttron-sidecar";

/// The suffix of the Secret that carries a request's certificate: `<request>-tls`.
pub const CERTIFICATE_SECRET_SUFFIX: &str = "-tls";
