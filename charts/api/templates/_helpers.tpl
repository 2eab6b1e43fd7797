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

{{- define "gameserver-api.gamesConfigMap" -}}
{{- if and .Values.games .Values.existingGamesConfigMap -}}
{{- fail "set either games or existingGamesConfigMap, not both" -}}
{{- else if .Values.games -}}
{{- include "gameserver-api.fullname" . }}-games
{{- else -}}
{{- .Values.existingGamesConfigMap -}}
{{- end -}}
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
