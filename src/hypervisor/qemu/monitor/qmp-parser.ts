// QEMU's monitor protocol on the wire: one JSON object a line, cut anywhere by the socket. Pure: octets in, messages out.

import { failed, type HypervisorError } from '../../port.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly version: QmpVersion }
  | { readonly kind: 'event'; readonly name: string; readonly data: JsonObject }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | {
      readonly kind: 'error';
      /** null: QEMU could not tell which command it is about. */
      readonly id: number | null;
      readonly errorClass: string;
      readonly description: string;
    };

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  readonly package: string;
}

/** No answer that we ask for comes near it. */
const LINE_BYTES_MAX = 4 * 1024 * 1024;

const NEWLINE = 0x0a;

/** Cuts what comes into lines. */
export class QmpParser {
  readonly #limit: number;
  #parts: Uint8Array[] = [];
  #held = 0;

  constructor(limit = LINE_BYTES_MAX) {
    this.#limit = limit;
  }

  /**
   * The messages that this chunk completes, in order.
   * @throws HypervisorError FAILED if a line is too long or no QMP message
   */
  push(chunk: Uint8Array): QmpMessage[] {
    const messages: QmpMessage[] = [];
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      this.#hold(chunk.subarray(from, end));
      const line = Buffer.concat(this.#parts).toString('utf8');
      this.#parts = [];
      this.#held = 0;
      from = end + 1;
      if (line.trim() !== '') messages.push(parseMessage(line));
    }
    if (from < chunk.length) this.#hold(new Uint8Array(chunk.subarray(from)));
    return messages;
  }

  #hold(part: Uint8Array): void {
    this.#held += part.length;
    if (this.#held > this.#limit) throw failed('QEMU sent a line that is too long', { limit: this.#limit });
    this.#parts.push(part);
  }
}

function parseMessage(line: string): QmpMessage {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw strange(line, error);
  }
  if (!isObject(value)) throw strange(line);
  if (isObject(value['QMP'])) return { kind: 'greeting', version: versionOf(value['QMP']['version'], line) };
  if (typeof value['event'] === 'string') {
    return { kind: 'event', name: value['event'], data: isObject(value['data']) ? value['data'] : {} };
  }
  const { id, error } = value;
  if (isObject(error)) {
    return {
      kind: 'error',
      id: typeof id === 'number' ? id : null,
      errorClass: String(error['class']),
      description: String(error['desc']),
    };
  }
  if ('return' in value && typeof id === 'number') return { kind: 'result', id, value: value['return'] };
  throw strange(line);
}

function versionOf(version: unknown, line: string): QmpVersion {
  const qemu = isObject(version) ? version['qemu'] : null;
  if (!isObject(version) || !isObject(qemu)) throw strange(line);
  const { major, minor, micro } = qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number')
    throw strange(line);
  return { major, minor, micro, package: typeof version['package'] === 'string' ? version['package'] : '' };
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function strange(line: string, cause?: unknown): HypervisorError {
  return failed('what came over the monitor socket is no QMP message', { line: line.slice(0, 200) }, cause);
}
