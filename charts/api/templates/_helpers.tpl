{{- /* Value of the label app.kubernetes.io/name. Selectors have it and cannot change, so it is not the chart's name: a
release from when the chart was named api keeps it, and an upgrade with --reuse-values leaves nameOverride empty. */ -}}
{{- define "gameserver-api.name" -}}
{{- .Values.nameOverride | default "api" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-api.fullname" -}}
{{- $name := include "gameserver-api.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gameserver-api.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end -}}

{{- /* Labels of the pods. The chart's name and version are not among them: a new version would restart the pods. */ -}}
{{- define "gameserver-api.podLabels" -}}
{{ include "gameserver-api.selectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gameserver-api.labels" -}}
{{ include "gameserver-api.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "gameserver-api.chart" . }}
{{- end -}}

{{- define "gameserver-api.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "gameserver-api.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | required "serviceAccount.name is required when serviceAccount.create is false" -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.tokensSecret" -}}
{{- if and .Values.tokens.existingSecret .Values.tokens.hashes -}}
{{- fail "set either tokens.existingSecret or tokens.hashes, not both" -}}
{{- else if .Values.tokens.existingSecret -}}
{{- .Values.tokens.existingSecret -}}
{{- else if .Values.tokens.hashes -}}
{{- include "gameserver-api.fullname" . }}-tokens
{{- else -}}
{{- fail "there are no tokens, so nobody could call the API. Set tokens.existingSecret to a Secret with tokens.json, or tokens.hashes to the tokens' SHA-256 hashes" -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.issuedTokensSecret" -}}
{{- include "gameserver-api.fullname" . }}-issued-tokens
{{- end -}}

{{- define "gameserver-api.webhooksSecret" -}}
{{- include "gameserver-api.fullname" . }}-webhooks
{{- end -}}

{{- define "gameserver-api.webhookSecretsSecret" -}}
{{- include "gameserver-api.fullname" . }}-webhook-secrets
{{- end -}}

{{- define "gameserver-api.gamesConfigMap" -}}
{{- if and .Values.games .Values.existingGamesConfigMap -}}
{{- fail "set either games or existingGamesConfigMap, not both" -}}
{{- else if .Values.games -}}
{{- include "gameserver-api.fullname" . }}-games
{{- else -}}
{{- .Values.existingGamesConfigMap -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.backupImage" -}}
{{- with .Values.backups.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Where backups are kept, as the Jobs' program reads it (backup/backup_job/request.py), without secrets; empty
without a store. */ -}}
{{- define "gameserver-api.store" -}}
{{- $backups := .Values.backups | default dict -}}
{{- $store := $backups.store | default dict -}}
{{- $needed := dict "s3" (list "endpoint" "bucket") "sftp" (list "host" "user" "path") "folder" (list "claim") -}}
{{- range $kind, $names := $needed -}}
{{- $given := get $store $kind | default dict -}}
{{- range $name := $names -}}
{{- if and (eq $kind ($store.kind | default "")) (not (get $given $name)) -}}
{{- fail (printf "backups.store.%s.%s is required when backups.store.kind is %s" $kind $name $kind) -}}
{{- else if and (ne $kind ($store.kind | default "")) (get $given $name) -}}
{{- fail (printf "backups.store.%s.%s is set, but backups.store.kind is %q" $kind $name ($store.kind | default "")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $store.kind -}}
{{- if and (ne $store.kind "folder") (not $store.existingSecret) -}}
{{- fail (printf "backups.store.existingSecret is required when backups.store.kind is %s: the Secret with the credentials of the store" $store.kind) -}}
{{- end -}}
{{- if not ($backups.recoveryKey).existingSecret -}}
{{- fail "backups.recoveryKey.existingSecret is required with a store. Without a recovery key, backups could not be opened once the cluster is lost" -}}
{{- end -}}
{{- if eq $store.kind "s3" -}}
{{- merge (dict "kind" "s3") $store.s3 | toJson -}}
{{- else if eq $store.kind "sftp" -}}
{{- merge (dict "kind" "sftp" "port" (int ($store.sftp.port | default 22))) $store.sftp | toJson -}}
{{- else -}}
{{- dict "kind" "folder" | toJson -}}
{{- end -}}
{{- else if $store.existingSecret -}}
{{- fail "backups.store.existingSecret is set, but backups.store.kind is not" -}}
{{- end -}}
{{- end -}}

{{- /* The namespace of the Jobs that have the recovery key; empty without a store. The controller may create Jobs there,
and these may mount each of its Secrets. */ -}}
{{- define "gameserver-api.backupsNamespace" -}}
{{- if include "gameserver-api.store" . -}}
{{- $namespace := .Values.backups.namespace | default (printf "%s-backups" .Values.serversNamespace) -}}
{{- if gt (len $namespace) 63 -}}
{{- fail (printf "set backups.namespace: %s is too long for a namespace" $namespace) -}}
{{- end -}}
{{- if has $namespace (list .Values.serversNamespace .Values.sftpNamespace .Release.Namespace) -}}
{{- fail (printf "backups.namespace must be a namespace of its own, not %s" $namespace) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}
{{- end -}}

{{- /* The port of the store; empty without a store or if it is a folder. */ -}}
{{- define "gameserver-api.storePort" -}}
{{- with include "gameserver-api.store" . | fromJson -}}
{{- if eq .kind "s3" -}}
{{- regexFind ":[0-9]+$" .endpoint | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http:" .endpoint)) -}}
{{- else if eq .kind "sftp" -}}
{{- int .port -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Labels of the Jobs' pods (service/backups/jobs.py). */ -}}
{{- define "gameserver-api.backupSelectorLabels" -}}
app.kubernetes.io/name: gameserver-backup
{{- end -}}

{{- /* What the Jobs' pods may reach: DNS and the store, and nothing may reach them. */ -}}
{{- define "gameserver-api.backupPolicy" -}}
policyTypes: [Ingress, Egress]
ingress: []
{{- with include "gameserver-api.storePort" . }}
egress:
  - ports:
      - port: {{ . }}
        protocol: TCP
    {{- with $.Values.networkPolicy.storeTo }}
    to:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  - ports:
      - port: 53
        protocol: UDP
      - port: 53
        protocol: TCP
    to:
      - namespaceSelector:
          matchLabels:
            kubernetes.io/metadata.name: kube-system
{{- else }}
egress: []
{{- end }}
{{- end -}}

{{- define "gameserver-api.config" -}}
server-values.yaml: {{ .Values.serverValues | toYaml | quote }}
{{- end -}}

{{- define "gameserver-api.games" -}}
{{- range $name, $game := .Values.games }}
{{ printf "%s.game.yaml" $name | quote }}: {{ $game.game | quote }}
{{ printf "%s.values.yaml.j2" $name | quote }}: {{ $game.values | quote }}
{{ printf "%s.options.schema.json" $name | quote }}: {{ $game.options | quote }}
{{- end }}
{{- end -}}

{{- /* The environment that API and controller have in common. */ -}}
{{- define "gameserver-api.environment" -}}
- name: METRICS_PORT
  value: "9090"
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: SERVERS_NAMESPACE
  value: {{ .Values.serversNamespace | quote }}
- name: SFTP_NAMESPACE
  value: {{ .Values.sftpNamespace | quote }}
- name: CHART_PATH
  value: /app/charts/gameserver
- name: TOKENS_SECRET
  value: {{ include "gameserver-api.tokensSecret" . | quote }}
- name: ISSUED_TOKENS_SECRET
  value: {{ include "gameserver-api.issuedTokensSecret" . | quote }}
- name: WEBHOOKS_SECRET
  value: {{ include "gameserver-api.webhooksSecret" . | quote }}
- name: WEBHOOK_SECRETS_SECRET
  value: {{ include "gameserver-api.webhookSecretsSecret" . | quote }}
- name: WEBHOOKS_FOR_CUSTOMERS
  value: {{ (.Values.webhooks).forCustomers | default false | quote }}
- name: WEBHOOK_ALLOWED
  value: {{ join "," (.Values.webhooks).allowed | quote }}
- name: WEBHOOK_REFUSED
  value: {{ join "," (.Values.webhooks).refused | quote }}
- name: SERVER_VALUES_FILE
  value: /etc/gameserver-api/config/server-values.yaml
{{- if include "gameserver-api.gamesConfigMap" . }}
- name: GAMES_DIR
  value: /etc/gameserver-api/games
{{- end }}
- name: ACCEPTED_EULAS
  value: {{ join "," .Values.acceptedEulas | quote }}
- name: MIN_RAM_GB
  value: {{ int .Values.limits.minRamGb | quote }}
- name: MAX_RAM_GB
  value: {{ int .Values.limits.maxRamGb | quote }}
- name: MIN_DISK_GB
  value: {{ int .Values.limits.minDiskGb | quote }}
- name: MAX_DISK_GB
  value: {{ int .Values.limits.maxDiskGb | quote }}
{{- /* An upgrade with --reuse-values from a chart without these has none of them. */}}
{{- $idle := .Values.idleStop | default dict }}
- name: IDLE_STOP_DEFAULT
  value: {{ int $idle.defaultMinutes | quote }}
- name: IDLE_STOP_MIN
  value: {{ int ($idle.minMinutes | default 10) | quote }}
- name: IDLE_STOP_MAX
  value: {{ int ($idle.maxMinutes | default 1440) | quote }}
- name: AUDIT_COMMANDS
  value: {{ (.Values.console).auditCommands | default false | quote }}
- name: CONSOLE_STDIN
  value: {{ (.Values.console).stdin | default false | quote }}
- name: EXTERNAL_HOST
  value: {{ .Values.externalHost | quote }}
- name: DISK_IMAGE
  value: {{ .Values.diskImage | default (include "gameserver-api.image" .) | quote }}
{{- with .Values.imagePullSecrets }}
- name: DISK_IMAGE_PULL_SECRETS
  value: {{ range $index, $secret := . }}{{ if $index }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
- name: CONTROLLER_OPERATIONS_AT_ONCE
  value: {{ int ((.Values.controller).operationsAtOnce | default 8) | quote }}
- name: HELM_DAEMON
  value: {{ ternary .Values.helmDaemon true (hasKey .Values "helmDaemon") | ternary "helm-daemon" "" | quote }}
- name: HELM_PROCESSES
  value: {{ int .Values.helmProcesses | quote }}
{{- /* A release of an earlier chart may be upgraded with --reuse-values, which leaves new values out. */ -}}
{{- with .Values.bulk }}
- name: BULK_AT_ONCE
  value: {{ int .atOnce | quote }}
- name: BULK_PER_MINUTE
  value: {{ int .perMinute | quote }}
{{- end }}
{{- with .Values.backups }}
- name: BACKUP_IMAGE
  value: {{ include "gameserver-api.backupImage" $ | quote }}
{{- with $.Values.imagePullSecrets }}
- name: BACKUP_IMAGE_PULL_SECRETS
  value: {{ range $index, $secret := . }}{{ if $index }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
- name: BACKUP_STORE
  value: {{ include "gameserver-api.store" $ | quote }}
- name: BACKUP_STORE_SECRET
  value: {{ .store.existingSecret | quote }}
- name: BACKUP_STORE_CLAIM
  value: {{ .store.folder.claim | quote }}
- name: BACKUP_NAMESPACE
  value: {{ include "gameserver-api.backupsNamespace" $ | quote }}
- name: BACKUP_RECOVERY_SECRET
  value: {{ .recoveryKey.existingSecret | quote }}
- name: BACKUP_SNAPSHOT_CLASS
  value: {{ .snapshotClass | quote }}
- name: BACKUP_KEEP
  value: {{ toJson .keep | quote }}
- name: BACKUPS_PER_SERVER
  value: {{ int .perServer | quote }}
- name: BACKUP_GB_PER_SERVER
  value: {{ int .gbPerServer | quote }}
- name: BACKUPS_AT_ONCE
  value: {{ int .atOnce | quote }}
- name: BACKUP_DAYS_AFTER_DELETE
  value: {{ int .daysAfterDelete | quote }}
- name: BACKUP_UNDO_DAYS
  value: {{ int .undoDays | quote }}
- name: BACKUP_PROOF_DAYS
  value: {{ int .proofDays | quote }}
- name: BACKUP_PRUNE_HOURS
  value: {{ int .pruneHours | quote }}
- name: BACKUP_JOB_RESOURCES
  value: {{ toJson .jobResources | quote }}
{{- end }}
- name: LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Whole folders are mounted: a file mounted with subPath never gets updates. */ -}}
{{- define "gameserver-api.volumeMounts" -}}
- name: config
  mountPath: /etc/gameserver-api/config
  readOnly: true
{{- if include "gameserver-api.gamesConfigMap" . }}
- name: games
  mountPath: /etc/gameserver-api/games
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "gameserver-api.volumes" -}}
- name: config
  configMap:
    name: {{ include "gameserver-api.fullname" . }}
{{- with include "gameserver-api.gamesConfigMap" . }}
- name: games
  configMap:
    name: {{ . }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- end -}}

{{- /* Where the pods of API and controller may run, and the Secrets for their image. */ -}}
{{- define "gameserver-api.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Labels of the controller's objects. An upgrade with --reuse-values from a release before the controller has none of
its values: the templates then take the defaults. */ -}}
{{- define "gameserver-api.controllerSelectorLabels" -}}
app.kubernetes.io/name: {{ include "gameserver-api.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "gameserver-api.controllerPodLabels" -}}
{{ include "gameserver-api.controllerSelectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gameserver-api.controllerLabels" -}}
{{ include "gameserver-api.controllerPodLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "gameserver-api.chart" . }}
{{- end -}}

{{- define "gameserver-api.controllerFullname" -}}
{{- include "gameserver-api.fullname" . | trunc 52 | trimSuffix "-" -}}-controller
{{- end -}}

{{- define "gameserver-api.controllerServiceAccountName" -}}
{{- if dig "serviceAccount" "create" true (.Values.controller | default dict) -}}
{{- dig "serviceAccount" "name" "" (.Values.controller | default dict) | default (include "gameserver-api.controllerFullname" .) -}}
{{- else -}}
{{- .Values.controller.serviceAccount.name | required "controller.serviceAccount.name is required when controller.serviceAccount.create is false" -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-api.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "gameserver-api.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
