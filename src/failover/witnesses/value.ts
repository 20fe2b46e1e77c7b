// A register as a witness keeps it: one JSON object of these keys and no others.
//
//   {"version":1,"generation":7,"mode":"paired","owner":"one","standby":"two","stream":"…","token":"…"}

import { asError } from '../../errors.js';
import { WitnessError } from '../error.js';
import { registerProblem, type Register } from '../register.js';

const VERSION = 1;
/** The longest that can be valid has less than half of it. */
export const VALUE_BYTES_MAX = 2048;

const KEYS = ['version', 'generation', 'mode', 'owner', 'standby', 'stream', 'token'];

export function encodeRegister({ generation, mode, owner, standby, stream, token }: Register): Buffer {
  return Buffer.from(
    JSON.stringify({ version: VERSION, generation, mode, owner, standby, stream, token }) + '\n',
  );
}

/** `where` it stood, for the error. @throws WitnessError CORRUPT */
export function decodeRegister(octets: Uint8Array, where: string): Register {
  if (octets.length > VALUE_BYTES_MAX) throw corrupt(where, octets, 'it is too long');
  const value = parsed(octets, where);
  const keys = Object.keys(value);
  if (value['version'] !== VERSION) throw corrupt(where, octets, 'the version');
  if (keys.length !== KEYS.length || !KEYS.every((key) => keys.includes(key))) {
    throw corrupt(where, octets, 'its keys');
  }
  // Of any type yet: that is what is looked at.
  const register = Object.fromEntries(
    keys.filter((key) => key !== 'version').map((key) => [key, value[key]]),
  ) as unknown as Register;
  const problem = registerProblem(register);
  if (problem !== null) throw corrupt(where, octets, problem);
  return register;
}

function parsed(octets: Uint8Array, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(octets));
  } catch (thrown) {
    throw corrupt(where, octets, asError(thrown).message);
  }
  if (!isRecord(value)) throw corrupt(where, octets, 'no object');
  return value;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function corrupt(where: string, octets: Uint8Array, problem: string): WitnessError {
  const begins = Buffer.from(octets.subarray(0, 64)).toString('latin1');
  const facts = { where, octets: octets.length, begins, problem };
  return new WitnessError('CORRUPT', `what stands at ${where} is no register`, facts);
}
