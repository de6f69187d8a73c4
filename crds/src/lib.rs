//! The `volttron.org/v1alpha1` API.
