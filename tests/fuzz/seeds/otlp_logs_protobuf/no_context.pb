
Ë
ï
"
log_name
otel_envoy_accesslog

	zone_name
z1

cluster_name
checkout.shop
O
	node_nameB
@sidecar~127.0.0.14~checkout-v1-77d9b.shop~shop.svc.cluster.local

service.name
checkout.shop
#
k8s.pod.name
checkout-v1-77d9bÖÓ	¸±êîœÑé*Â
¿[2026-11-20T17:39:58.437Z] "GET /users/444 HTTP/1.1" 200 - via_upstream - "-" 0 12 5 5 "-" "Python/3.11 aiohttp/3.14.5" "79fa00fe-fa64-90d4-93c4-b15d64d3f490" "users.shop.svc.cluster.local:8080" "127.0.0.13:15006" outbound|8080||users.shop.svc.cluster.local 127.0.0.14:43858 127.0.0.14:15001 127.0.0.14:46247 - default
2
response_code
2002
response_flags
-2
duration_ms
52A
upstream_cluster-
+outbound|8080||users.shop.svc.cluster.local2#
upstream_host
127.0.0.13:150062/
downstream_remote_address
127.0.0.14:462472
source_principal
-2B
destination_principal)
'spiffe://cluster.local/ns/shop/sa/users2
attempts
12

route_name	
default2 
listener_direction

outbound