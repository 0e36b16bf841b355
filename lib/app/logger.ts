/** Where an app's messages go: any object with these methods, such as winston's or pino's. */
export interface Logger {
  trace?(message: string, details?: unknown): void;
  debug(message: string, details?: unknown): void;
  info(message: string, details?: unknown): void;
  warn(message: string, details?: unknown): void;
  error(message: string, details?: unknown): void;
}

/** The default: quiet below `warn`, to stderr. */
export const stderrLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: (message, details) => write('warn', message, details),
  error: (message, details) => write('error', message, details),
};

function write(level: string, message: string, details: unknown): void {
  const cause = details instanceof Error || isErrorOfAnotherRealm(details) ? details : undefined;
  const text = cause?.stack ?? (details === undefined ? '' : safeJson(details));
  process.stderr.write(`[mortise] ${level}: ${maskSecrets(text ? `${message} ${text}` : message)}\n`);
}

function isErrorOfAnotherRealm(value: unknown): value is Error {
  return Object.prototype.toString.call(value) === '[object Error]';
}

function safeJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** The text without the passwords of URLs in it: `redis://user:***@host`. */
export function maskSecrets(text: string): string {
  return text.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s@/]+@/gi, '$1:***@');
}
