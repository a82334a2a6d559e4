
Î
„
"
log_name
otel_envoy_accesslog

	zone_name
z1

cluster_name

users.shop
L
	node_name?
=sidecar~127.0.0.13~users-v1-5f7c8.shop~shop.svc.cluster.local

service.name

users.shop
 
k8s.pod.name
users-v1-5f7c8Çˇ	:®…ú—È*…
∆[2026-11-20T17:39:57.812Z] "GET /report HTTP/1.1" 200 - via_upstream - "-" 0 12 64 63 "-" "Python/3.11 aiohttp/3.14.5" "7fb01e80-89bc-9537-9370-2a71f74bb674" "inventory.shop.svc.cluster.local:8080" "127.0.0.15:15006" outbound|8080||inventory.shop.svc.cluster.local 127.0.0.13:35982 127.0.0.13:15001 127.0.0.13:58835 - default
2
response_code
2002
response_flags
-2
duration_ms
642E
upstream_cluster1
/outbound|8080||inventory.shop.svc.cluster.local2#
upstream_host
127.0.0.15:150062/
downstream_remote_address
127.0.0.13:588352
source_principal
-2F
destination_principal-
+spiffe://cluster.local/ns/shop/sa/inventory2
attempts
12

route_name	
default2 
listener_direction

outboundJá]<$Tx~ko°€kµ‰Rj·Ï÷•°
ö
„
"
log_name
otel_envoy_accesslog

	zone_name
z1

cluster_name

users.shop
L
	node_name?
=sidecar~127.0.0.13~users-v1-5f7c8.shop~shop.svc.cluster.local

service.name

users.shop
 
k8s.pod.name
users-v1-5f7c8±Æ	8Ñ
√ú—È*é
ã[2026-11-20T17:39:57.701Z] "GET /api/users/964 HTTP/1.1" 200 - via_upstream - "-" 0 12 5 4 "127.0.0.9" "shop-mobile/3.2" "8fe3f18a-0864-91db-94c7-d71da23e6e75" "shop.example.com" "127.0.0.13:8080" inbound|8080|| 127.0.0.6:43102 127.0.0.13:15006 127.0.0.9:0 - default
2
response_code
2002
response_flags
-2
duration_ms
52$
upstream_cluster
inbound|8080||2"
upstream_host
127.0.0.13:80802*
downstream_remote_address
127.0.0.9:02T
source_principal@
>spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway2
destination_principal
-2
attempts
12

route_name	
default2
listener_direction	
inboundJ¬∞˛EöXÀéQ6^#Rùë8=…L