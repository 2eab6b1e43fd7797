{{- /* Value of the label app.kubernetes.io/name. Selectors have it and cannot change, so it is not the chart's name: a
release from when the chart was named sftp-daemonset keeps it, and an upgrade with --reuse-values leaves nameOverride
empty. */ -}}
{{- define "gameserver-sftp.name" -}}
{{- .Values.nameOverride | default "sftp-daemonset" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The longest suffix of an object's name is -host-key, and a Job's name is part of its pods' names. */ -}}
{{- define "gameserver-sftp.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-sftp.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-sftp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gameserver-sftp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of the pods. The chart's name and version are not among them: a new version would end all sessions. */ -}}
{{- define "gameserver-sftp.podLabels" -}}
{{ include "gameserver-sftp.selectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
{{- end -}}

{{- define "gameserver-sftp.labels" -}}
{{ include "gameserver-sftp.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "gameserver-sftp.chart" . }}
{{- end -}}

{{- define "gameserver-sftp.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gameserver-sftp.serviceAccountName" -}}
{{- include "gameserver-sftp.fullname" . -}}
{{- end -}}

{{- /* Annotations of the objects that make the host keys. They exist only while an install or upgrade runs. */ -}}
{{- define "gameserver-sftp.hookAnnotations" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
