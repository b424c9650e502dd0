export * from "radix-ui/dropdown-menu";
