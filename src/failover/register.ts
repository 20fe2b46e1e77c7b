// The register of a domain says who may run it. It stands at a witness, which all hosts of the domain can ask, and is
// changed by compare-and-set only, so that of two who want it one wins. There is no lease and no clock in it: safety
// never depends on time.
//
//   absent ──▶ alone/A ◀──▶ paired/A,B,stream ──▶ alone/B ◀──▶ …         each ─▶ is one generation more
//
//   alone    only the owner runs the domain; what it says passes
//   paired   the owner lets out what the standby has acknowledged in this stream; either may go on alone, by the register
//
// Who writes gives each write a token of its own: a write whose reply was lost is known again by it (settle.ts).

import { WitnessError } from './error.js';

/** What a host wants the register to say. Hosts by their names. */
export interface Claim {
  readonly mode: 'alone' | 'paired';
  readonly owner: string;
  /** Exactly when paired, as is `stream`; another host than the owner. */
  readonly standby: string | null;
  /** The stream of checkpoints that the standby holds one of. */
  readonly stream: string | null;
}

export interface Register extends Claim {
  /** 1, 2, …: one more with each write that won. */
  readonly generation: number;
  /** Of the write that made it. */
  readonly token: string;
}

/** Each single request has a limit of time, which is the witness' own. */
export interface RegisterWitness {
  /** What it is, for logs: "etcd at …". */
  readonly name: string;
  /**
   * Null: absent, never written.
   * @throws WitnessError UNREACHABLE, TIMEOUT, DENIED, CORRUPT, BAD_CLAIM, BAD_OPTIONS, ABORTED, CLOSED
   */
  read(domain: string, signal?: AbortSignal): Promise<Register | null>;
  /**
   * One attempt: the claim becomes the generation after `expected` (null: the first) if the register still is
   * `expected`. 'lost': it is not; or it was ours already, by an earlier attempt of this write. Rejects if the outcome
   * is not known, and then may still come true: use settle().
   * @throws WitnessError as read(), FENCE_FAILED, NO_WITNESS
   */
  compareAndSet(
    domain: string,
    expected: Register | null,
    claim: Claim,
    token: string,
    signal?: AbortSignal,
  ): Promise<'won' | 'lost'>;
  /** Ends what is under way (CLOSED). */
  close(): void | Promise<void>;
}

/** One write, as compareAndSet() takes it. */
export interface RegisterWrite {
  readonly expected: Register | null;
  readonly claim: Claim;
  readonly token: string;
}

/** What the register is when the write has won. */
export function written({ expected, claim, token }: RegisterWrite): Register {
  const { mode, owner, standby, stream } = claim;
  return { generation: expected === null ? 1 : expected.generation + 1, mode, owner, standby, stream, token };
}

export function sameRegister(one: Register | null, other: Register | null): boolean {
  if (one === null || other === null) return one === other;
  return (
    one.generation === other.generation &&
    one.token === other.token &&
    one.mode === other.mode &&
    one.owner === other.owner &&
    one.standby === other.standby &&
    one.stream === other.stream
  );
}

const DOMAIN = /^[a-z0-9][a-z0-9-]{0,62}$/;
const HOST = /^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/;
const STREAM = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
const TOKEN = /^[A-Za-z0-9_-]{1,64}$/;

/** @throws WitnessError BAD_CLAIM */
export function checkDomain(domain: string): void {
  if (!DOMAIN.test(domain)) throw bad('the name of a domain', domain);
}

/** @throws WitnessError BAD_CLAIM */
export function checkHost(host: string): void {
  if (!isHost(host)) throw bad('the name of a host', host);
}

/** @throws WitnessError BAD_CLAIM */
export function checkWrite(domain: string, write: RegisterWrite): void {
  checkDomain(domain);
  const { expected } = write;
  const problem = (expected && registerProblem(expected)) ?? registerProblem(written(write));
  if (problem !== null) throw bad('a write to the register', problem);
}

/** Of a register that came from elsewhere, whose fields may be anything: what is wrong, or null. */
export function registerProblem(register: Readonly<Record<keyof Register, unknown>>): string | null {
  const { generation, mode, owner, standby, stream, token } = register;
  if (!Number.isSafeInteger(generation) || Number(generation) < 1) return 'the generation';
  if (typeof token !== 'string' || !TOKEN.test(token)) return 'the token';
  if (!isHost(owner)) return 'the owner';
  switch (mode) {
    case 'alone':
      return standby === null && stream === null ? null : 'a standby or a stream beside the mode alone';
    case 'paired':
      if (!isHost(standby) || standby === owner) return 'the standby';
      return typeof stream === 'string' && STREAM.test(stream) ? null : 'the stream';
    default:
      return 'the mode';
  }
}

function isHost(value: unknown): value is string {
  return typeof value === 'string' && HOST.test(value);
}

function bad(what: string, given: string): WitnessError {
  return new WitnessError('BAD_CLAIM', `this cannot be ${what}`, { given: given.slice(0, 256) });
}
