FROM runtime AS {{name}}
ENV {{NAME}}_HOST=0.0.0.0 {{NAME}}_PORT={{port}}
EXPOSE {{port}} {{metrics_port}}
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "servicekit.probe", "127.0.0.1:{{port}}"]
CMD ["python", "-m", "services.{{name}}"]
