// What an owner may do by the register, and what it must write there first. A pure function: no clock, no I/O, no randomness.
//
//   alone / A ◀───────────── link lost: asked, then granted ─────────────┐
//      │                                                                 │
//      └── the first checkpoint of a stream is acknowledged ──▶ paired / A, B, s
//
// A domain that is handed over goes by way of paired / B, A, s: B has claimed it, and A holds it still as it was handed over.
// Nothing is heard of it there before B has written alone / B. If B dies before that, A takes it back.
//
// Between a question and its answer, and as long as the answer is not known, the domain counts as paired: what B has
// acknowledged may leave, nothing else. One write is under way at a time. That a write is lost means that somebody has
// taken over: nothing else moves the register of an owner, but a late write of the process that was here before.

import type { Claim, Register, RegisterWrite } from './register.js';

/** Which standby holds a checkpoint of which pairing (the UUID of the stream that began it). */
export interface Pairing {
  readonly standby: string;
  readonly stream: string;
}

export interface Mandate {
  readonly host: string;
  /** Makes tokens of this process unlike those of any other. */
  readonly instance: string;
  /** The register is one for all hosts. Else it is this host's own, and says nothing of what the others did. */
  readonly shared: boolean;
  /** As last known for certain. */
  readonly register: Register;
  /** The write whose outcome is not known. */
  readonly asking: RegisterWrite | null;
  /** Somebody else is the owner: nothing may be done any more. */
  readonly lost: boolean;
  readonly writes: number;
}

/** What an owner of a domain has made sure of: it is the owner, by this register. */
export function mandateOf(host: string, instance: string, register: Register, shared = true): Mandate {
  if (register.owner !== host) throw new Error(`${host} is not the owner: ${register.owner} is`);
  return { host, instance, register, shared, asking: null, lost: false, writes: 0 };
}

/** Nobody else runs it, or may: all that it says may leave. */
export function isAlone({ register, asking, lost }: Mandate): boolean {
  return !lost && asking === null && register.mode === 'alone';
}

/** The pairing by which somebody may take over, or might be able to soon. */
export function isPairedBy(mandate: Mandate, pairing: Pairing): boolean {
  return [mandate.register, mandate.asking?.claim].some(
    (claim) => claim?.standby === pairing.standby && claim.stream === pairing.stream,
  );
}

/** The pairing by which somebody may take over, for certain. */
export function isWritten({ register }: Mandate, { standby, stream }: Pairing): boolean {
  return register.standby === standby && register.stream === stream;
}

/** Somebody may take over by another pairing than this, or have done so: it is written, or may be. */
export function mayBePairedOtherwise({ register, asking }: Mandate, { standby, stream }: Pairing): boolean {
  return [register, asking?.claim].some(
    (claim) => claim?.mode === 'paired' && (claim.standby !== standby || claim.stream !== stream),
  );
}

/**
 * What is to be written so that the register says what is the case. `pairing`: who holds an acknowledged checkpoint of
 * the stream that is under way; null: nobody.
 */
export function wanted(mandate: Mandate, pairing: Pairing | null): [Mandate, RegisterWrite | null] {
  const { host, instance, register, asking, lost } = mandate;
  if (lost || asking !== null) return [mandate, null];
  const claim: Claim = pairing ? { mode: 'paired', owner: host, ...pairing } : aloneOf(host);
  if (isSame(register, claim)) return [mandate, null];
  const writes = mandate.writes + 1;
  const write: RegisterWrite = { expected: register, claim, token: `${instance}-${writes}` };
  return [{ ...mandate, asking: write, writes }, write];
}

/** The outcome of the write under way; `register`: as it is now. */
export function answered(
  mandate: Mandate,
  token: string,
  outcome: { won: boolean; register: Register | null },
): Mandate {
  if (mandate.asking?.token !== token) return mandate;
  const { register } = outcome;
  // A write of the process that was here before may have come late: then it moved it, and we are the owner still.
  if (register?.owner === mandate.host) return { ...mandate, asking: null, register };
  if (register && isClaimed(register, mandate)) return { ...mandate, asking: null, register };
  return { ...mandate, asking: null, lost: true };
}

/** The standby has claimed what we have handed to it, and has not confirmed that it runs it: ours to take back. */
export function isTentative({ host, register }: Mandate): boolean {
  return register.mode === 'paired' && register.standby === host;
}

function isClaimed(register: Register, { host, register: before }: Mandate): boolean {
  const other = before.owner === host ? before.standby : before.owner;
  const claim = { mode: 'paired', owner: other ?? '', standby: host, stream: before.stream } as const;
  return other !== null && isSame(register, claim);
}

export function isSame(register: Claim, claim: Claim): boolean {
  return (
    register.mode === claim.mode &&
    register.owner === claim.owner &&
    register.standby === claim.standby &&
    register.stream === claim.stream
  );
}

/**
 * The write by which a standby takes over, if the register lets it: it holds a checkpoint of exactly that pairing.
 * `handedOver`: by an owner that holds it, too, and may take it back until that is confirmed.
 */
export function takeOverWrite(
  register: Register | null,
  host: string,
  { owner, stream, handedOver = false }: Handed,
  token: string,
): RegisterWrite | null {
  const theirs: Claim = { mode: 'paired', owner, standby: host, stream };
  if (register === null || !isSame(register, theirs)) return null;
  const claim: Claim = handedOver ? { mode: 'paired', owner: host, standby: owner, stream } : aloneOf(host);
  return { expected: register, claim, token };
}

/** What was handed over runs here. */
export function confirmWrite(claimed: Register, token: string): RegisterWrite {
  return { expected: claimed, claim: aloneOf(claimed.owner), token };
}

interface Handed {
  readonly owner: string;
  readonly stream: string;
  readonly handedOver?: boolean;
}

function aloneOf(owner: string): Claim {
  return { mode: 'alone', owner, standby: null, stream: null };
}
