/** The client of a tree of components. */

import type { Client } from "@wakeline/client";
import { createContext, createElement, type ReactNode, useContext } from "react";

const ClientContext = createContext<Client | undefined>(undefined);

/** Gives the components below it a client, which the application makes once and keeps. */
export function WakelineProvider({ client, children }: { readonly client: Client; readonly children?: ReactNode }) {
  return createElement(ClientContext.Provider, { value: client }, children);
}

/** The client of the nearest provider. */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (!client) throw new Error("expected <WakelineProvider client={connect(…)}> above this component, got none");
  return client;
}
