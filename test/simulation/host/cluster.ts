// What all hosts of one run have in common, and what the parts of an agent see of it.

import type { Random } from '../../support/random.js';
import type { History, Point } from '../checkers/history.js';
import type { Loss } from '../checkers/loss.js';
import type { Plant } from '../plants.js';
import type { Story } from '../story.js';
import type { Clock } from '../world/clock.js';
import type { End, Message, Seat } from '../world/connection.js';
import type { Gate } from '../world/gate.js';
import type { Guest } from '../world/guest.js';
import type { Network } from '../world/network.js';
import type { Process } from '../world/process.js';
import type { SimulatedWitness } from '../world/witness.js';

/** Drawn by the seed. Milliseconds, but for the window, which is epochs. */
export interface Params {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly checkpointIntervalMs: number;
  readonly windowEpochs: number;
  readonly acknowledgeTimeoutMs: number;
  readonly reconnectWindowMs: number;
  readonly redialMinMs: number;
  readonly redialMaxMs: number;
  readonly connectTimeoutMs: number;
  readonly witnessTimeoutMs: number;
  readonly latencyMs: number;
  /** To make a domain; to start one; to copy all of its memory; to pause it; to apply a checkpoint; to change the gate. */
  readonly makeMs: number;
  readonly startMs: number;
  readonly copyMs: number;
  readonly pauseMs: number;
  readonly commitMs: number;
  readonly gateMs: number;
  readonly tickMs: number;
  /** The guest stands still while its agent does. */
  readonly bound: boolean;
  /** The first host's guest outlives its agent, and cannot stand by. */
  readonly attached: boolean;
  /** A standby whose hypervisor does not take the last checkpoint: as of the one before it, or of no use. */
  readonly refusesLast: 'goes-back' | 'is-lost' | null;
}

export interface Cluster {
  readonly params: Params;
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly witness: SimulatedWitness;
  readonly history: History;
  readonly loss: Loss;
  readonly plant: Plant | null;
  /** Null: nobody reads it. */
  readonly story: Story | null;
  /** In order of preference. */
  readonly hosts: Hosted[];
  /** Streams are named in the order of their welcomes. */
  streams: number;
  takeovers: number;
  resumed: number;
  switchovers: number;
  /** A standby did not take the last checkpoint: it has not what it had. */
  readonly refused: () => void;
}

/** A guest that runs, or will, and its way out. */
export interface Estate {
  readonly guest: Guest;
  readonly gate: Gate;
  /** Somebody wants to hear of that. */
  crashed: () => void;
}

/** A host as the others, and its own agent, see it. */
export interface Hosted {
  readonly name: string;
  readonly isUp: boolean;
  readonly attached: boolean;
  /** What runs here as the owner's. */
  estate: Estate | null;
  readonly agent: {
    readonly process: Process;
    readonly seat: Seat;
    receive(end: End, message: Message): void;
  } | null;
}

/** An agent as its parts see it. */
export interface AgentPorts {
  readonly cluster: Cluster;
  readonly host: Hosted;
  readonly process: Process;
  readonly seat: Seat;
  /** Of this process alone. */
  readonly instance: string;
  /** A domain that is made now: it has no history. */
  makeEstate(): Estate;
  /** It runs from there on, and is heard. */
  takeOver(from: Point): Estate;
}

/** What an agent plays for the domain. */
export interface Part {
  /** Entries in all that it keeps. */
  readonly size: number;
  begin(begun: () => void): void;
  stop(done: () => void): void;
}
