// Structured logs on standard error: one JSON object a line for machines, coloured lines on a terminal.
//
// Written synchronously: the lines before a crash are the ones that count. Standard output is never touched, it may
// be a domain's console.

import { pino, type DestinationStream, type Logger, type LoggerOptions } from 'pino';
import pretty from 'pino-pretty';
import type { LogConfig } from '../config/schema.js';
import { type Facts, RomulusError } from '../errors.js';

export type { Logger } from 'pino';

const STANDARD_ERROR = 2;
const UNWRITTEN_OCTETS_MAX = 2 ** 20;
/** A chain of causes longer than this is a loop. */
const CAUSES_LIMIT = 8;

/** `destination` instead of standard error, for programs that embed Romulus. */
export function createLogger(config: LogConfig, destination?: DestinationStream): Logger {
  const options: LoggerOptions = {
    level: config.level,
    // The host's name and the process' number are what the collector of the logs adds.
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: serialiseError, error: serialiseError },
  };
  if (destination) return pino(options, destination);
  const forPeople = config.format === 'pretty' || (config.format === 'auto' && process.stderr.isTTY);
  if (!forPeople) {
    // What cannot be written (a terminal that has gone, a full disk) is kept up to this, and ends nothing.
    const standardError = pino.destination({
      dest: STANDARD_ERROR,
      sync: true,
      maxLength: UNWRITTEN_OCTETS_MAX,
    });
    standardError.on('error', () => undefined);
    return pino(options, standardError);
  }
  return pino(
    options,
    pretty({
      destination: STANDARD_ERROR,
      sync: true,
      colorize: process.stderr.isTTY && process.env['NO_COLOR'] === undefined,
      translateTime: 'SYS:HH:MM:ss.l',
      messageFormat: '{if domain}[{domain}] {end}{msg}',
      ignore: 'domain',
    }),
  );
}

/** The logger of one domain: each of its lines names it. */
export function domainLogger(log: Logger, domain: string): Logger {
  return log.child({ domain });
}

/** An error as data: code and facts as fields of their own, causes nested. */
export function serialiseError(thrown: unknown): unknown {
  return serialise(thrown, CAUSES_LIMIT);
}

function serialise(thrown: unknown, depth: number): unknown {
  if (!(thrown instanceof Error)) return printable(thrown);
  const code: unknown = (thrown as { code?: unknown }).code;
  return {
    type: thrown.name,
    message: thrown.message,
    ...(typeof code === 'string' && { code }),
    ...(thrown instanceof RomulusError && { facts: printableFacts((thrown as RomulusError).facts) }),
    stack: thrown.stack,
    ...(thrown.cause !== undefined && {
      cause: depth > 0 ? serialise(thrown.cause, depth - 1) : 'and more causes',
    }),
  };
}

function printableFacts(facts: Facts): Record<string, unknown> {
  return Object.fromEntries(Object.entries(facts).map(([key, fact]) => [key, printable(fact)]));
}

/** JSON has no integers beyond 2^53, and offsets may be. */
function printable(value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
