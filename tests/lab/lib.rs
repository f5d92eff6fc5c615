//! The lab: private network namespaces with kube-router-like state.
