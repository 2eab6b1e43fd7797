{{- /* The server's id, from the release's name. (`helm lint` uses another name, and passes over these checks.) */ -}}
{{- define "gameserver.id" -}}
{{- $id := .Release.Name | trimPrefix "server-" -}}
{{- if not (regexMatch "^server-[1-9][0-9]{0,18}$" .Release.Name) -}}
{{- fail (printf "The release is named %q. Name a server's release server-<id>; the id is a whole number from 1, as in server-4711" .Release.Name) -}}
{{- else if and .Values.server.id (ne .Values.server.id $id) -}}
{{- fail (printf "server.id is %q, but the release is named %q: they must match" .Values.server.id .Release.Name) -}}
{{- end -}}
{{- $id -}}
{{- end -}}

{{- /* This chart has no nameOverride and no fullnameOverride: the API, the SFTP agent and operators find the objects of a
server by these names and labels. It has no serviceAccountName either: a game gets no credentials for Kubernetes. */ -}}
{{- define "gameserver.name" -}}
gameserver
{{- end -}}

{{- define "gameserver.fullname" -}}
{{- .Release.Name -}}
{{- end -}}

{{- define "gameserver.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* They never change, because a StatefulSet's selector cannot. The component keeps the pod of `helm test` out of the
Service. */ -}}
{{- define "gameserver.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gameserver.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- /* Labels of the pod. The chart's name and version are not among them: a new version would restart all servers. */ -}}
{{- define "gameserver.podLabels" -}}
{{ include "gameserver.selectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
app.kubernetes.io/managed-by: {{ .Release.Service }}
gameserver/id: {{ include "gameserver.id" . | quote }}
gameserver/game: {{ .Values.game | quote }}
{{- end -}}

{{- define "gameserver.labels" -}}
{{ include "gameserver.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "gameserver.chart" . }}
{{- end -}}

{{- define "gameserver.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Escape a text so that it arrives unchanged: in a container's environment, command and arguments, Kubernetes
replaces $(NAME), and $$ with $. */ -}}
{{- define "gameserver.literal" -}}
{{- . | replace "$" "$$" | quote -}}
{{- end -}}

{{- /* The heap in MiB. Java's other memory gets a quarter of the pod's: at least 512 MiB and at most 3 GiB. */ -}}
{{- define "gameserver.heapMiB" -}}
{{- $ram := mul (int .Values.ramGb) 1024 -}}
{{- sub $ram (min 3072 (max 512 (div $ram 4))) -}}
{{- end -}}

{{- /* The environment of the game, with unique names. The operator's variables override the chart's, and the chart's
override the game's, so that no option of a game can disable a console's password. */ -}}
{{- define "gameserver.environment" -}}
{{- $texts := deepCopy .Values.environment -}}
{{- with .Values.heap.environmentVariable -}}
{{- $_ := set $texts . (printf "%sM" (include "gameserver.heapMiB" $)) -}}
{{- end -}}
{{- /* An upgrade with --reuse-values from an earlier chart has no `stop`. */ -}}
{{- with (.Values.stop).durationVariable -}}
{{- if not (hasKey $texts .) -}}
{{- $name := $.Values.stop.delayVariable | default "" -}}
{{- $delay := get $texts $name -}}
{{- range $.Values.extraEnv -}}
{{- if eq .name $name }}{{ $delay = .value }}{{ end -}}
{{- end -}}
{{- $_ := set $texts . (sub (int $.Values.terminationGracePeriodSeconds) (add 5 (int $delay)) | max 1 | toString) -}}
{{- end -}}
{{- end -}}
{{- if .Values.rcon.enabled -}}
{{- $_ := set $texts "ENABLE_RCON" "true" -}}
{{- $_ := set $texts "RCON_PORT" (.Values.rcon.port | int | toString) -}}
{{- $_ := set $texts "RCON_PASSWORD_FILE" "/run/gameserver/rcon/password" -}}
{{- end -}}
{{- if (.Values.econ).enabled -}}
{{- $_ := set $texts "ECON_PORT" (.Values.econ.port | int | toString) -}}
{{- $_ := set $texts "ECON_PASSWORD_FILE" "/run/gameserver/econ/password" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range .Values.extraEnv -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "extraEnv has %s twice" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- $_ := unset $texts .name -}}
{{- end -}}
{{- range $name, $text := $texts }}
- name: {{ $name | quote }}
  value: {{ include "gameserver.literal" $text }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The ports of a Service or container: a list of {name, port, protocol}. "both" becomes two ports. The port of econ,
which is the container's alone, is not among them. An upgrade with --reuse-values from an earlier chart has no value of
it. */ -}}
{{- define "gameserver.ports" -}}
{{- $ports := list -}}
{{- range .Values.ports -}}
{{- if eq .protocol "both" -}}
{{- $ports = append $ports (dict "name" .name "port" .port "protocol" "TCP") -}}
{{- $ports = append $ports (dict "name" (printf "%s-udp" .name) "port" .port "protocol" "UDP") -}}
{{- else -}}
{{- $ports = append $ports . -}}
{{- end -}}
{{- end -}}
{{- if .Values.rcon.enabled -}}
{{- $ports = append $ports (dict "name" "rcon" "port" .Values.rcon.port "protocol" "TCP") -}}
{{- end -}}
{{- $all := $ports -}}
{{- if (.Values.econ).enabled -}}
{{- $all = append $ports (dict "name" "econ" "port" .Values.econ.port "protocol" "TCP") -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $all -}}
{{- range (list .name (printf "%v/%s" .port .protocol)) -}}
{{- if hasKey $seen . -}}
{{- fail (printf "ports: %s is used twice (RCON and econ have their own ports)" .) -}}
{{- end -}}
{{- $_ := set $seen . true -}}
{{- end -}}
{{- end -}}
{{- $ports | toJson -}}
{{- end -}}

{{- /* The node port of a port with two protocols, so that they share one and keep it; empty if Kubernetes is to assign it.
Kubernetes gives both protocols the same number only when it creates the Service, not when a protocol is added:
https://github.com/kubernetes/kubernetes/issues/85020. And it assigns another to the second once the number is no longer
named. The argument: `port`, one of "gameserver.ports", and `service`, the existing Service or an empty one. */ -}}
{{- define "gameserver.nodePort" -}}
{{- $name := trimSuffix "-udp" .port.name -}}
{{- $own := 0 -}}
{{- $other := 0 -}}
{{- range dig "spec" "ports" (list) .service -}}
{{- if and (eq (int .port) (int $.port.port)) (eq (trimSuffix "-udp" .name) $name) -}}
{{- if eq .protocol $.port.protocol -}}
{{- $own = int .nodePort -}}
{{- else -}}
{{- $other = int .nodePort -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $own | default $other -}}{{- . -}}{{- end -}}
{{- end -}}

{{- /* What the Pod Security Standard "restricted" requires of a pod, and the user that owns the files. */ -}}
{{- define "gameserver.podSecurityContext" -}}
{{- with .Values.securityContext -}}
runAsNonRoot: true
runAsUser: {{ int64 .runAsUser }}
runAsGroup: {{ int64 .runAsGroup }}
fsGroup: {{ int64 .fsGroup }}
# Do not walk through a large world at each start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end -}}

{{- define "gameserver.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ . }}
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* The server's spec, for the API. The StatefulSet has it, and so does the claim, which outlives the server. */ -}}
{{- define "gameserver.record" -}}
{{- $record := dict "game" .Values.game "ram_gb" .Values.ramGb "disk_gb" .Values.diskGb "options" .Values.server.options "customer" .Values.server.customer -}}
{{- with .Values.server.uid }}{{ $_ := set $record "uid" . }}{{ end -}}
{{- with .Values.server.idleStopMinutes }}{{ $_ := set $record "idle_stop_minutes" (int .) }}{{ end -}}
{{- with .Values.server.idleStopped }}{{ $_ := set $record "idle_stopped" . }}{{ end -}}
{{- with .Values.server.backupKeep }}{{ $_ := set $record "backup_keep" . }}{{ end -}}
{{- with .Values.server.suspended }}{{ $_ := set $record "suspended" . }}{{ end -}}
{{- with .Values.server.restoring }}{{ $_ := set $record "restoring" . }}{{ end -}}
{{- $record | toJson -}}
{{- end -}}

{{- /* "true" in a revision that leaves a running pod unchanged, and empty in all others. */ -}}
{{- define "gameserver.keepsPod" -}}
{{- if eq (int .Values.keepPodInRevision) .Release.Revision -}}true{{- end -}}
{{- end -}}

{{- /* Local keeps players' own addresses, and works if players connect to the server's own node. A host name, an address
in front of all nodes or a load balancer may lead to any node, so these get Cluster. In a revision that leaves the pod
unchanged, an existing Service keeps its policy. */ -}}
{{- define "gameserver.externalTrafficPolicy" -}}
{{- $anyNode := or .Values.service.externalHostname (.Values.server).behindOneHost -}}
{{- $policy := ternary "Local" "Cluster" (and (eq .Values.service.type "NodePort") (empty $anyNode)) -}}
{{- if include "gameserver.keepsPod" . -}}
{{- $service := lookup "v1" "Service" .Release.Namespace (include "gameserver.fullname" .) -}}
{{- $policy = dig "spec" "externalTrafficPolicy" $policy $service -}}
{{- end -}}
{{- .Values.service.externalTrafficPolicy | default $policy -}}
{{- end -}}

{{- /* The fields that the load balancers of the game and of SFTP share. Its argument is (list $ "name of the Service").
The class of an existing load balancer cannot change, so it stays even if the values have changed. */ -}}
{{- define "gameserver.loadBalancer" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values.service -}}
{{- $class := $values.loadBalancerClass -}}
{{- $service := lookup "v1" "Service" $root.Release.Namespace (index . 1) -}}
{{- if eq (dig "spec" "type" "" $service) "LoadBalancer" -}}
{{- $class = dig "spec" "loadBalancerClass" "" $service -}}
{{- end -}}
{{- with $class }}
loadBalancerClass: {{ . | quote }}
{{- end }}
{{- if not $values.allocateLoadBalancerNodePorts }}
allocateLoadBalancerNodePorts: false
{{- end }}
{{- with $values.loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The size that the claim requests. The argument: `diskGb`, and `claim`, the existing claim or an empty one.

A smaller size than the requested one is possible only after a growth that the storage has refused, and Kubernetes then
takes only what is larger than the disk itself. So for the disk's own size, this requests a MiB more. The API and this
template do not count up to 64 MiB. A size that is not in whole GiB, as a restored claim may have, stays: rounding it up
would grow the disk, which not every class can.
https://kubernetes.io/docs/concepts/storage/persistent-volumes/#recovering-from-failure-when-expanding-volumes
*/}}
{{- define "gameserver.diskRequest" -}}
{{- $request := printf "%dGi" (int .diskGb) -}}
{{- with .claim -}}
{{- $requested := .spec.resources.requests.storage -}}
{{- $capacity := dig "status" "capacity" "storage" "0" . -}}
{{- $wanted := mulf $.diskGb 1024 -}}
{{- $asked := include "gameserver.mib" $requested | float64 -}}
{{- $has := include "gameserver.mib" $capacity | float64 -}}
{{- if eq $wanted (mulf 1024 (ceil (divf (ternary (subf $asked 64) $asked (gt $asked 1024.0)) 1024))) -}}
{{- $request = $requested -}}
{{- else if and (gt $asked $wanted) (or (eq $has 0.0) (gt $has (addf $wanted 64))) -}}
{{- fail (printf "diskGb is %d, but the disk already has %s and cannot shrink" (int $.diskGb) $requested) -}}
{{- else if and (gt $asked $wanted) (ge $has $wanted) -}}
{{- $request = printf "%dMi" (addf (floor $has) 1 | int64) -}}
{{- end -}}
{{- end -}}
{{- $request -}}
{{- end }}

{{/*
A quantity of bytes in MiB; 0 if it has a suffix that nobody uses for disks.
*/}}
{{- define "gameserver.mib" -}}
{{- $suffix := regexFind "[A-Za-z]*$" (toString .) -}}
{{- $bytes := get (dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624) $suffix -}}
{{- divf (mulf (trimSuffix $suffix (toString .) | float64) ($bytes | default 0 | float64)) 1048576 -}}
{{- end }}
