// Structured logs on standard error: one JSON object a line for machines, coloured lines on a terminal.
//
// Whoever reads them may stall, and the service must not notice: a line is written at once or kept until it can be, within
// limits (log-sink.ts). What waits when the process ends, in order or by an error, gets a last moment. Standard output is
// never touched, it may be a domain's console.

import { isatty } from 'node:tty';
import { pino, type DestinationStream, type Logger, type LoggerOptions } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { LogConfig } from '../config/sections.js';
import { RomulusError } from '../errors.js';
import { standardOutlet } from '../output/standard-outlet.js';
import { LogSink } from './log-sink.js';

export type { Logger } from 'pino';

const STANDARD_ERROR = 2;
/** A chain of causes longer than this is a loop. */
const CAUSES_MAX = 8;
/** For the lines that wait when the process ends: nobody who waits for its end shall notice. */
const LAST_LINES_MS = 100;

/** Makes of a line of JSON what is written. */
type Render = (line: string) => string;

/** There is one standard error: its sink belongs to the process. */
let sink: LogSink | null = null;

/** `destination` instead of standard error, for programs that embed Romulus. */
export function createLogger(config: LogConfig, destination?: DestinationStream): Logger {
  const options: LoggerOptions = {
    level: config.level,
    // The host's name and the process' number are what the collector of the logs adds.
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: errorAsData, error: errorAsData },
  };
  if (destination) return pino(options, destination);
  const terminal = isatty(STANDARD_ERROR);
  const forPeople = config.format === 'pretty' || (config.format === 'auto' && terminal);
  const render: Render = forPeople ? renderForPeople(terminal) : (line) => line;
  const standardError = standardErrorSink(render);
  return pino(options, { write: (line) => standardError.write(render(line)) });
}

/** Lines that standard error did not take in time, since the process has started. */
export function logLinesDropped(): number {
  return sink?.linesDropped ?? 0;
}

/** Resolves when all lines are written, or the time is over. */
export async function flushLog(timeoutMs: number): Promise<void> {
  await sink?.flush(timeoutMs);
}

/** For a person, not as a line of the log; the same way, if there is a log. */
export function writeToStandardError(text: string): void {
  if (sink) sink.write(text);
  else process.stderr.write(text);
}

function standardErrorSink(render: Render): LogSink {
  if (sink) return sink;
  const outlet = standardOutlet(STANDARD_ERROR, { eager: true, lost: (bytes) => made.lost(bytes) });
  const notice = (linesDropped: number) =>
    render(
      `${JSON.stringify({
        level: 'warn',
        time: new Date().toISOString(),
        linesDropped,
        msg: `${linesDropped} lines of the log were dropped here: nobody read them in time`,
      })}\n`,
    );
  const made = new LogSink(outlet, notice);
  process.on('exit', () => made.flushNow(LAST_LINES_MS));
  sink = made;
  return made;
}

function renderForPeople(terminal: boolean): Render {
  const format = prettyFactory({
    colorize: terminal && process.env['NO_COLOR'] === undefined,
    translateTime: 'SYS:HH:MM:ss.l',
    messageFormat: '{if domain}[{domain}] {end}{msg}',
    ignore: 'domain',
  });
  return (line) => format(line);
}

/** The logger of one domain: each of its lines names it. */
export function domainLogger(log: Logger, domain: string): Logger {
  return log.child({ domain });
}

const errorAsData = (thrown: unknown): unknown => serialise(thrown, CAUSES_MAX);

/** An error as data: code and facts as fields of their own, causes nested, so many of them. */
function serialise(thrown: unknown, depth: number): unknown {
  if (!(thrown instanceof Error)) return printable(thrown);
  const code: unknown = (thrown as { code?: unknown }).code;
  const facts = thrown instanceof RomulusError ? Object.entries((thrown as RomulusError).facts) : null;
  return {
    type: thrown.name,
    message: thrown.message,
    ...(typeof code === 'string' && { code }),
    ...(facts && { facts: Object.fromEntries(facts.map(([key, fact]) => [key, printable(fact)])) }),
    stack: thrown.stack,
    ...(thrown.cause !== undefined && {
      cause: depth > 0 ? serialise(thrown.cause, depth - 1) : 'and more causes',
    }),
  };
}

/** JSON has no integers beyond 2^53, and offsets may be. */
function printable(value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
