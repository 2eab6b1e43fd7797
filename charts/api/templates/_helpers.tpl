{{- define "api.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "api.fullname" -}}
{{- $name := include "api.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "api.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end -}}

{{- /* Labels of the pods: nothing of the chart's version, which would restart them for nothing. */ -}}
{{- define "api.podLabels" -}}
{{ include "api.selectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "api.labels" -}}
{{ include "api.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "api.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "api.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "api.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | required "serviceAccount.name is needed when serviceAccount.create is false" -}}
{{- end -}}
{{- end -}}

{{- define "api.tokensSecret" -}}
{{- if and .Values.tokens.existingSecret .Values.tokens.hashes -}}
{{- fail "tokens: set either existingSecret or hashes, not both" -}}
{{- else if .Values.tokens.existingSecret -}}
{{- .Values.tokens.existingSecret -}}
{{- else if .Values.tokens.hashes -}}
{{- include "api.fullname" . }}-tokens
{{- else -}}
{{- fail "tokens: nobody could call the API. Set tokens.existingSecret to a Secret with tokens.json, or tokens.hashes to the tokens' SHA-256" -}}
{{- end -}}
{{- end -}}

{{- define "api.issuedTokensSecret" -}}
{{- include "api.fullname" . }}-issued-tokens
{{- end -}}

{{- define "api.gamesConfigMap" -}}
{{- if and .Values.games .Values.existingGamesConfigMap -}}
{{- fail "set either games or existingGamesConfigMap, not both" -}}
{{- else if .Values.games -}}
{{- include "api.fullname" . }}-games
{{- else -}}
{{- .Values.existingGamesConfigMap -}}
{{- end -}}
{{- end -}}

{{- define "api.config" -}}
server-values.yaml: {{ .Values.serverValues | toYaml | quote }}
{{- end -}}

{{- define "api.games" -}}
{{- range $name, $game := .Values.games }}
{{ printf "%s.game.yaml" $name | quote }}: {{ $game.game | quote }}
{{ printf "%s.values.yaml.j2" $name | quote }}: {{ $game.values | quote }}
{{ printf "%s.options.schema.json" $name | quote }}: {{ $game.options | quote }}
{{- end }}
{{- end -}}

{{- define "api.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "api.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
