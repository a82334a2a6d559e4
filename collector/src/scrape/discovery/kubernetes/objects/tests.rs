use serde_json::json;

use super::{Object, groups_of};
use crate::scrape::config::KubernetesRole;

/// Each target as its address and those of its labels that `object` does not all have in common.
#[track_caller]
fn check(role: KubernetesRole, object: serde_json::Value, expect: &[(&str, &str)]) {
    let object: Object = serde_json::from_value(object).unwrap();
    let groups = groups_of(role, &object);
    assert_eq!(groups.len(), expect.len(), "{groups:#?}");
    for (group, (address, labels)) in groups.iter().zip(expect) {
        assert_eq!(group.targets, [*address]);
        let names = group
            .labels
            .iter()
            .map(|(name, value)| format!("{}={value}", name.strip_prefix("__meta_kubernetes_").unwrap_or(name)));
        assert_eq!(names.collect::<Vec<_>>().join(" "), *labels, "{address}");
    }
}

fn meta() -> serde_json::Value {
    json!({"name": "orders", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
        "labels": {"app.kubernetes.io/name": "orders"}, "annotations": {"a/b": "1"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "orders-1", "controller": true}]})
}

#[test]
fn pods_have_a_target_per_port() {
    let pod = json!({"metadata": meta(), "spec": {"nodeName": "n1",
        "containers": [{"name": "app", "image": "orders:1", "ports": [{"containerPort": 8080, "name": "http"}]}],
        "initContainers": [{"name": "init", "image": "init:1"}]},
        "status": {"podIP": "10.0.0.1", "hostIP": "10.0.1.1", "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "containerID": "c1"}]}});
    let before = "namespace=shop pod_annotation_a_b=1 pod_annotationpresent_a_b=true";
    let after = "pod_controller_kind=ReplicaSet pod_controller_name=orders-1 pod_host_ip=10.0.1.1 pod_ip=10.0.0.1 \
        pod_label_app_kubernetes_io_name=orders pod_labelpresent_app_kubernetes_io_name=true pod_name=orders \
        pod_node_name=n1 pod_phase=Running pod_ready=true pod_uid=u1";
    let app = format!(
        "{before} pod_container_id=c1 pod_container_image=orders:1 pod_container_init=false pod_container_name=app \
         pod_container_port_name=http pod_container_port_number=8080 pod_container_port_protocol=TCP {after}"
    );
    let init = format!("{before} pod_container_image=init:1 pod_container_init=true pod_container_name=init {after}");
    check(KubernetesRole::Pod, pod, &[("10.0.0.1:8080", &app), ("10.0.0.1", &init)]);
    check(KubernetesRole::Pod, json!({"metadata": meta(), "status": {"phase": "Pending"}}), &[]);
}

#[test]
fn services_nodes_and_endpoints() {
    let bare = json!({"name": "orders", "namespace": "shop"});
    check(
        KubernetesRole::Service,
        json!({"metadata": bare, "spec": {"type": "ClusterIP", "clusterIP": "10.1.0.1", "ports": [{"port": 80, "name": "http", "protocol": "TCP"}]}}),
        &[(
            "orders.shop.svc:80",
            "namespace=shop service_cluster_ip=10.1.0.1 service_name=orders service_port_name=http service_port_number=80 service_port_protocol=TCP service_type=ClusterIP",
        )],
    );
    check(
        KubernetesRole::Node,
        json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "fd00::1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}),
        &[("[fd00::1]:10250", "node_address_Hostname=h node_address_InternalIP=fd00::1 node_name=n1 instance=n1")],
    );
    check(
        KubernetesRole::Endpoints,
        json!({"metadata": bare, "subsets": [{"addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "orders-1"}}],
            "notReadyAddresses": [{"ip": "10.0.0.2", "nodeName": "n1"}], "ports": [{"port": 8080, "name": "http"}]}]}),
        &[
            (
                "10.0.0.1:8080",
                "endpoint_address_target_kind=Pod endpoint_address_target_name=orders-1 endpoint_port_name=http endpoint_port_protocol=TCP endpoint_ready=true endpoints_name=orders namespace=shop",
            ),
            (
                "10.0.0.2:8080",
                "endpoint_node_name=n1 endpoint_port_name=http endpoint_port_protocol=TCP endpoint_ready=false endpoints_name=orders namespace=shop",
            ),
        ],
    );
    check(
        KubernetesRole::EndpointSlice,
        json!({"metadata": bare, "addressType": "IPv4", "ports": [{"port": 8080, "name": "http"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": "z1"}]}),
        &[(
            "10.0.0.1:8080",
            "endpointslice_address_type=IPv4 endpointslice_endpoint_conditions_ready=true endpointslice_endpoint_zone=z1 endpointslice_name=orders endpointslice_port=8080 endpointslice_port_name=http endpointslice_port_protocol=TCP namespace=shop",
        )],
    );
}
